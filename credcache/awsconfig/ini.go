package awsconfig

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"unicode"
	"unicode/utf8"
)

// sections are the sections of an INI file, with option names in lower case. The
// value of an indented block begins with a newline.
type sections map[string]map[string]string

// parseINI parses a file as Python's RawConfigParser does, which botocore uses: the
// first "=" or ":" ends the name of an option, lines that are indented deeper than
// their option continue its value, comments are on separate lines, the options of
// [DEFAULT] apply to all sections, and duplicates are errors.
func parseINI(content []byte) (sections, error) {
	found, err := parseFlat(content)
	for _, s := range found {
		for option, value := range s {
			if !nestedIsGood(value) {
				return nil, fmt.Errorf("the indented block of %s has a line without =", option)
			}
		}
	}
	return found, err
}

// parseFlat is parseINI without the check of indented blocks.
func parseFlat(content []byte) (sections, error) {
	if len(content) == 0 {
		return sections{}, nil
	}
	if !utf8.Valid(content) {
		return nil, errors.New("it is not UTF-8")
	}
	found, defaults := sections{}, map[string]string{}
	var section map[string]string
	var name string
	lines := map[string][]string{} // of each value in the section
	flush := func() {
		for option, value := range lines {
			section[option] = strings.TrimRightFunc(strings.Join(value, "\n"), isSpace)
		}
		clear(lines)
	}
	option, indent := "", 0
	number := 0
	for line := range strings.SplitSeq(universalNewlines(string(content)), "\n") {
		number++
		trimmed := strings.TrimFunc(line, isSpace)
		blank := trimmed == ""
		if blank || trimmed[0] == '#' || trimmed[0] == ';' {
			if blank && option != "" { // it may be within a value; at the end it is trimmed
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
					// Where the name ends depends on the version of Python.
					return nil, fmt.Errorf("line %d has ] in a section name", number)
				}
				flush()
				option = ""
				if name == "DEFAULT" {
					section = defaults
					continue
				}
				if found[name] != nil {
					return nil, fmt.Errorf("line %d repeats a section", number)
				}
				section = map[string]string{}
				found[name] = section
				continue
			}
		}
		if section == nil {
			return nil, fmt.Errorf("line %d is before the first section", number)
		}
		at := strings.IndexAny(trimmed, "=:")
		if at < 0 {
			return nil, fmt.Errorf("line %d has neither = nor : in it", number)
		}
		if option = strings.ToLower(strings.TrimRightFunc(trimmed[:at], isSpace)); option == "" {
			return nil, fmt.Errorf("line %d has no option name", number)
		}
		if strings.ContainsAny(trimmed[:at], "İΣ") { // Python has its own rules for lower case
			return nil, fmt.Errorf("line %d has an unsupported letter in an option name", number)
		}
		_, twice := lines[option]
		if _, before := section[option]; twice || before { // before: [DEFAULT] may come twice
			return nil, fmt.Errorf("line %d repeats an option", number)
		}
		lines[option] = []string{strings.TrimLeftFunc(trimmed[at+1:], isSpace)}
	}
	flush()
	if len(defaults) == 0 {
		return found, nil
	}
	for _, s := range found {
		own := maps.Clone(s)
		maps.Copy(s, defaults)
		maps.Copy(s, own)
	}
	return found, nil
}

// nestedIsGood reports whether a value, if it is an indented block, has an option in
// every line.
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

// universalNewlines converts line ends as Python does.
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

// splitName splits a section name at white space, with quotes and backslashes as in
// a shell (Python's shlex.split).
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
