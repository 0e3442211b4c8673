package webhook

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
)

// A scanner reads a JSON text (RFC 8259) from front to back and keeps nothing
// that was not asked for. The webhook wants a few hundred bytes of many
// thousand, and a review may cost 1.4 times what reading it and echoing its uid
// does. Libraries go over that, because they check all of the syntax or go
// through nested values once for each level, and the strict ones take a hundred
// megabytes for one hostile body of seven. So of values that nobody wants the
// scanner makes out where they end, and no more.
//
// What it reads of a valid text is what encoding/json reads; FuzzReview holds it
// to that. Some texts that are not valid pass too; only their sender is the worse
// for it, because API servers write valid ones.
type scanner struct {
	text []byte
	pos  int // of the first byte that was not read
}

// A decodeFunc reads the next value and keeps what it is for. What is composed
// of the functions below reads like the document that it decodes, and is nested
// as deep, whatever the text is.
type decodeFunc func(*scanner) error

// A member is one of an object's that is wanted.
type member struct {
	name   string
	decode decodeFunc
}

// object reads an object, or null as one without members. It skips members
// that are not wanted. Names are compared byte by byte. A wanted member that
// occurs twice is an error: which of them counts would be anyone's guess.
func object(wanted ...member) decodeFunc {
	return func(s *scanner) error {
		var seen uint64 // a bit for each that is wanted
		return s.sequence('{', '}', func() error {
			name, err := s.string()
			if err != nil {
				return err
			}
			if s.peek() != ':' {
				return s.unexpected()
			}
			s.pos++
			for i := range wanted {
				if wanted[i].name != string(name) {
					continue
				}
				if seen&(1<<i) != 0 {
					return fmt.Errorf("a second %q before byte %d", name, s.pos)
				}
				seen |= 1 << i
				return wanted[i].decode(s)
			}
			return s.skip()
		})
	}
}

// array reads an array's elements one by one, or null as an empty one.
func array(element decodeFunc) decodeFunc {
	return func(s *scanner) error {
		return s.sequence('[', ']', func() error { return element(s) })
	}
}

// text reads a string, or null as an empty one.
func text(to *string) decodeFunc {
	return func(s *scanner) error {
		*to = ""
		if s.peek() == 'n' {
			return s.literal()
		}
		value, err := s.string()
		*to = string(value)
		return err
	}
}

// given notes whether the value is there and not null.
func given(is *bool, decode decodeFunc) decodeFunc {
	return func(s *scanner) error {
		*is = s.peek() != 'n'
		return decode(s)
	}
}

// end checks that nothing follows.
func (s *scanner) end() error {
	if s.peek(); s.pos < len(s.text) {
		return s.unexpected()
	}
	return nil
}

// peek passes over white space and returns the byte after it, 0 at the end.
func (s *scanner) peek() byte {
	for ; s.pos < len(s.text); s.pos++ {
		switch c := s.text[s.pos]; c {
		case ' ', '\n', '\t', '\r':
		default:
			return c
		}
	}
	return 0
}

// sequence reads what stands between two brackets and is separated by commas;
// null is an empty sequence.
func (s *scanner) sequence(left, right byte, element func() error) error {
	switch s.peek() {
	case left:
		s.pos++
	case 'n':
		return s.literal()
	default:
		return s.unexpected()
	}
	if s.peek() == right {
		s.pos++
		return nil
	}
	for {
		if err := element(); err != nil {
			return err
		}
		switch s.peek() {
		case ',':
			s.pos++
		case right:
			s.pos++
			return nil
		default:
			return s.unexpected()
		}
	}
}

// skip passes over any value.
func (s *scanner) skip() error {
	switch s.peek() {
	case '{', '[', '"':
	default:
		return s.literal()
	}
	text, depth := s.text, 0
	for i := s.pos; i < len(text); i++ {
		switch text[i] {
		case '"':
			i = closingQuote(text, i+1)
		case '{', '[':
			depth++
			continue
		case '}', ']':
			depth--
		default:
			continue
		}
		if depth == 0 && i < len(text) {
			s.pos = i + 1
			return nil
		}
	}
	return errEnd
}

// closingQuote returns where the string ends whose first byte is at i, or an
// index after the text.
func closingQuote(text []byte, i int) int {
	for i < len(text) && text[i] != '"' {
		if text[i] == '\\' {
			i++
		}
		i++
	}
	return i
}

// string reads a string and returns its value, which is valid as long as the
// text is.
func (s *scanner) string() ([]byte, error) {
	if s.peek() != '"' {
		return nil, s.unexpected()
	}
	start := s.pos
	end := closingQuote(s.text, start+1)
	if end >= len(s.text) {
		return nil, errEnd
	}
	s.pos = end + 1
	if raw := s.text[start+1 : end]; bytes.IndexByte(raw, '\\') < 0 {
		return raw, nil
	}
	var value string
	err := json.Unmarshal(s.text[start:s.pos], &value)
	return []byte(value), err
}

// literal reads a number, true, false or null.
func (s *scanner) literal() error {
	start := s.pos
	for s.pos < len(s.text) && isLiteral(s.text[s.pos]) {
		s.pos++
	}
	if s.pos == start {
		return s.unexpected()
	}
	return nil
}

func isLiteral(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || c == '-' || c == '+' || c == '.' || c == 'E'
}

var errEnd = errors.New("unexpected end")

func (s *scanner) unexpected() error {
	if s.pos >= len(s.text) {
		return errEnd
	}
	return fmt.Errorf("unexpected %q at byte %d", s.text[s.pos], s.pos)
}
