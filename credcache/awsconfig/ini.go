package awsconfig

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"unicode"
	"unicode/utf8"
)

// sections are an INI file's, with option names in lower case. Within a section
// an option that was written as an indented block begins with a line end.
type sections map[string]map[string]string

// parseINI reads a file as Python's RawConfigParser does, with which botocore
// reads: options end at the first "=" or ":", lines that are indented deeper
// than their option go on with its value, comments stand on lines of their own,
// what [DEFAULT] says holds in every section, and anything twice is an error.
func parseINI(content []byte) (sections, error) {
	found, err := parseFlat(content)
	for _, s := range found {
		for option, value := range s {
			if !nestedIsGood(value) {
				return nil, fmt.Errorf("the block of %s has a line without =", option)
			}
		}
	}
	return found, err
}

// parseFlat is parseINI without regard to what is in indented blocks.
func parseFlat(content []byte) (sections, error) {
	if !utf8.Valid(content) {
		return nil, errors.New("it is not UTF-8")
	}
	found, defaults := sections{}, map[string]string{}
	var section map[string]string
	var name string
	lines := map[string][]string{} // of the values in the section
	flush := func() {
		for option, value := range lines {
			section[option] = strings.TrimRightFunc(strings.Join(value, "\n"), isSpace)
		}
		clear(lines)
	}
	option, indent := "", 0
	for number, line := range strings.Split(universalNewlines(string(content)), "\n") {
		trimmed := strings.TrimFunc(line, isSpace)
		blank := trimmed == ""
		if blank || trimmed[0] == '#' || trimmed[0] == ';' {
			if blank && option != "" { // it may stand within a value; after the last one it is trimmed
				lines[option] = append(lines[option], "")
			}
			continue
		}
		now := utf8.RuneCountInString(line) - utf8.RuneCountInString(strings.TrimLeftFunc(line, isSpace))
		if section != nil && option != "" && now > indent {
			lines[option] = append(lines[option], trimmed)
			continue
		}
		indent = now
		if trimmed[0] == '[' {
			end := strings.LastIndexByte(trimmed, ']')
			if end > 1 {
				if name = trimmed[1:end]; strings.ContainsRune(name, ']') {
					// Versions of Python differ in where the name ends.
					return nil, fmt.Errorf("line %d has ] in the name of a section", number+1)
				}
				flush()
				option = ""
				if name == "DEFAULT" {
					section = defaults
					continue
				}
				if found[name] != nil {
					return nil, fmt.Errorf("line %d begins a section for the second time", number+1)
				}
				section = map[string]string{}
				found[name] = section
				continue
			}
		}
		if section == nil {
			return nil, fmt.Errorf("line %d stands before any section", number+1)
		}
		at := strings.IndexAny(trimmed, "=:")
		if at < 0 {
			return nil, fmt.Errorf("line %d has neither = nor : in it", number+1)
		}
		if option = strings.ToLower(strings.TrimRightFunc(trimmed[:at], isSpace)); option == "" {
			return nil, fmt.Errorf("line %d names no option", number+1)
		}
		if strings.ContainsAny(trimmed[:at], "İΣ") { // Python makes them small in its own way
			return nil, fmt.Errorf("line %d names an option with a letter that is not understood here", number+1)
		}
		_, twice := lines[option]
		if _, before := section[option]; twice || before { // before: [DEFAULT] may come twice
			return nil, fmt.Errorf("line %d sets an option for the second time", number+1)
		}
		lines[option] = []string{strings.TrimLeftFunc(trimmed[at+1:], isSpace)}
	}
	flush()
	for _, s := range found {
		own := maps.Clone(s)
		maps.Copy(s, defaults)
		maps.Copy(s, own)
	}
	return found, nil
}

// nestedIsGood reports whether a value that is an indented block can be read as
// one, with an option in every line.
func nestedIsGood(value string) bool {
	block, nested := strings.CutPrefix(value, "\n")
	if !nested {
		return true
	}
	for _, line := range strings.FieldsFunc(block, func(r rune) bool { // str.splitlines
		return r >= '\n' && r <= '\r' || r >= 0x1c && r <= 0x1e || r == 0x85 || r == 0x2028 || r == 0x2029
	}) {
		if strings.TrimFunc(line, isSpace) != "" && !strings.Contains(line, "=") {
			return false
		}
	}
	return true
}

// universalNewlines makes every line end as Python reads it.
func universalNewlines(s string) string {
	if !strings.Contains(s, "\r") {
		return s
	}
	return strings.ReplaceAll(strings.ReplaceAll(s, "\r\n", "\n"), "\r", "\n")
}

// isSpace is Python's str.isspace.
func isSpace(r rune) bool {
	return unicode.IsSpace(r) || r >= 0x1c && r <= 0x1f
}

// splitName splits a section's name at white space, with quotes and backslashes
// as in a shell (Python's shlex.split).
func splitName(s string) (words []string, ok bool) {
	var word strings.Builder
	inWord := false
	var quote rune
	escaped := false
	for _, r := range s {
		switch {
		case escaped:
			if quote == '"' && r != '"' && r != '\\' {
				word.WriteByte('\\')
			}
			word.WriteRune(r)
			escaped = false
		case r == '\\' && quote != '\'':
			escaped, inWord = true, true
		case quote != 0:
			if r == quote {
				quote = 0
			} else {
				word.WriteRune(r)
			}
		case r == '"' || r == '\'':
			quote, inWord = r, true
		case r == ' ' || r == '\t' || r == '\r' || r == '\n':
			if inWord {
				words = append(words, word.String())
				word.Reset()
			}
			inWord = false
		default:
			inWord = true
			word.WriteRune(r)
		}
	}
	if quote != 0 || escaped {
		return nil, false
	}
	if inWord {
		words = append(words, word.String())
	}
	return words, true
}
