//go:build unix

package store

const canUnlink = true
