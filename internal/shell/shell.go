// Package shell quotes words, so that users can copy a printed command into a POSIX
// shell.
package shell

import "strings"

// Word returns a word for a shell, in quotes if it has characters that may be special.
func Word(word string) string {
	const plain = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._/:@%+,=-"
	if word != "" && strings.Trim(word, plain) == "" {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}
