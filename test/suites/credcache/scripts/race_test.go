//go:build race

package scripts

const race = true
