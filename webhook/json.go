package webhook

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// A scanner reads a JSON text (RFC 8259) from front to back through a window, and keeps
// only what it is asked for. So a text of any size takes the memory of the window; the
// webhook needs a few hundred bytes of many thousand. The scanner skips unwanted values
// by finding their ends.
//
// The budget of a review is 1.25 times the cost of reading it and echoing its uid, and
// libraries do not meet it. For a review of 6.6 KB, the scanner takes 7.5 µs;
// encoding/json/v2 into a struct takes 18 to 24 µs, or 47 to 63 µs if it is as strict.
// When v2 is no longer experimental and meets the budget, the scanner can be removed.
//
// From a valid text, it reads the same values as encoding/json, which FuzzReview
// verifies. It also accepts some invalid texts. That affects only their sender, because
// API servers send valid ones.
//
// The first error is kept: after it, there is nothing more to read, every object and
// array ends, and every value is empty.
type scanner struct {
	from   io.Reader
	err    error
	window []byte // bytes that were read and may not have been used yet; its capacity never grows
	pos    int    // in the window, of the first unused byte
	before int    // bytes of the text before the window
}

// windowSize is the memory for a text, and maxString the maximum length of a wanted
// string, including its quotes and escapes.
const (
	windowSize = 16 << 10
	maxString  = 1 << 10
)

// reset starts another text.
func (s *scanner) reset(from io.Reader) {
	if s.window == nil {
		s.window = make([]byte, 0, windowSize)
	}
	*s = scanner{from: from, window: s.window[:0]}
}

// A list is an array or an object that is being read.
type list struct {
	scanner     *scanner
	left, right byte // its brackets
	begun, over bool
}

// array returns a list of elements, each of which has to be read after next. null
// is an empty array.
func (s *scanner) array() list { return list{scanner: s, left: '[', right: ']'} }

// next moves to the next element, and reports whether there is one.
func (l *list) next() bool {
	s := l.scanner
	c := s.peek()
	switch {
	case l.over:
	case l.begun && c == ',':
		s.pos++
		return true
	case l.begun && c == l.right:
		s.pos++
	case !l.begun && c == l.left:
		s.pos++
		if l.begun = true; s.peek() != l.right {
			return true
		}
		s.pos++
	case !l.begun && c == 'n':
		s.literal()
	default:
		s.unexpected()
	}
	l.over = true
	return false
}

// A members is an object from which some members are wanted.
type members struct {
	list   list
	wanted []string
	seen   uint64 // a bit for each of wanted
	name   string // of the member that next found
}

// object returns the members with the wanted names, each of which has to be read after
// next. Names are compared byte by byte. A duplicate is an error, because parsers
// differ in which one counts. null is an object without members.
func (s *scanner) object(wanted ...string) members {
	return members{list: list{scanner: s, left: '{', right: '}'}, wanted: wanted}
}

// next skips members up to one that is wanted, and reports whether there is one.
func (m *members) next() bool {
	s := m.list.scanner
	for m.list.next() {
		name, _ := s.string() // a truncated name is not a wanted one
		i := 0
		for i < len(m.wanted) && m.wanted[i] != string(name) {
			i++
		}
		if s.peek() != ':' {
			s.unexpected()
			return false
		}
		s.pos++
		if i == len(m.wanted) {
			s.skip()
			continue
		}
		m.name = m.wanted[i]
		if m.seen&(1<<i) != 0 {
			s.fail(fmt.Errorf("duplicate member %q before byte %d", strings.Clone(m.name), s.before+s.pos))
			return false
		}
		m.seen |= 1 << i
		return true
	}
	return false
}

// text reads a string, or null as an empty one.
func (s *scanner) text() string {
	if s.null() {
		s.literal()
		return ""
	}
	value, whole := s.string()
	if !whole {
		s.fail(fmt.Errorf("string of more than %d bytes before byte %d", maxString, s.before+s.pos))
	}
	return string(value)
}

// null reports whether the next value is null.
func (s *scanner) null() bool { return s.peek() == 'n' }

// end checks that nothing follows.
func (s *scanner) end() {
	if s.peek(); s.pos < len(s.window) {
		s.unexpected()
	}
}

// peek skips white space and returns the byte after it, or 0 at the end.
func (s *scanner) peek() byte {
	for {
		for ; s.pos < len(s.window); s.pos++ {
			switch c := s.window[s.pos]; c {
			case ' ', '\n', '\t', '\r':
			default:
				return c
			}
		}
		if !s.more() {
			return 0
		}
	}
}

// skip skips any value.
func (s *scanner) skip() {
	switch s.peek() {
	case '{', '[', '"':
	default:
		s.literal()
		return
	}
	depth := 0
	for {
		window := s.window
		for i := s.pos; i < len(window); i++ {
			switch window[i] {
			case '"':
				s.pos = i + 1
				if !s.closeString() {
					return
				}
				window, i = s.window, s.pos-1
			case '{', '[':
				depth++
				continue
			case '}', ']':
				depth--
			default:
				continue
			}
			if depth == 0 {
				s.pos = i + 1
				return
			}
		}
		s.pos = len(window)
		if !s.more() {
			s.fail(errEnd)
			return
		}
	}
}

// closeString skips the rest of a string and its closing quote.
func (s *scanner) closeString() bool {
	for {
		i := closingQuote(s.window, s.pos)
		if i < len(s.window) {
			s.pos = i + 1
			return true
		}
		escaped := i - len(s.window) // 1 if the window ends with a backslash
		s.pos = len(s.window)
		if !s.more() {
			s.fail(errEnd)
			return false
		}
		s.pos += escaped
	}
}

// closingQuote returns the index of the closing quote of the string whose next byte is
// at i, or an index after the text.
func closingQuote(text []byte, i int) int {
	for i < len(text) && text[i] != '"' {
		if text[i] == '\\' {
			i++
		}
		i++
	}
	return i
}

// string reads a string. Its value is valid until the next read. If the string is longer
// than maxString, it returns the beginning, and that it is not the whole string.
func (s *scanner) string() (value []byte, whole bool) {
	if s.peek() != '"' {
		s.unexpected()
		return nil, true
	}
	end := closingQuote(s.window, s.pos+1)
	for end >= len(s.window) && len(s.window)-s.pos < maxString {
		if !s.more() {
			s.fail(errEnd)
			return nil, true
		}
		end = closingQuote(s.window, s.pos+1)
	}
	if end-s.pos >= maxString {
		return s.beginning(), false
	}
	quoted := s.window[s.pos : end+1]
	s.pos = end + 1
	if raw := quoted[1 : len(quoted)-1]; bytes.IndexByte(raw, '\\') < 0 {
		return raw, true
	}
	var unescaped string
	if err := json.Unmarshal(quoted, &unescaped); err != nil {
		s.fail(err)
	}
	return []byte(unescaped), true
}

// beginning skips a string that is too long, and returns its first bytes, up to an
// escape.
func (s *scanner) beginning() []byte {
	value := bytes.Clone(s.window[s.pos+1 : s.pos+maxString])
	s.pos++
	s.closeString()
	if i := bytes.IndexByte(value, '\\'); i >= 0 {
		value = value[:i]
	}
	return value
}

// literal reads a number, true, false or null.
func (s *scanner) literal() {
	if !isLiteral(s.peek()) {
		s.unexpected()
		return
	}
	for {
		for ; s.pos < len(s.window); s.pos++ {
			if !isLiteral(s.window[s.pos]) {
				return
			}
		}
		if !s.more() {
			return
		}
	}
}

func isLiteral(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || c == '-' || c == '+' || c == '.' || c == 'E'
}

var errEnd = errors.New("unexpected end")

// more reads more of the text into the window, and keeps unused bytes. It returns false
// at the end, and after an error.
func (s *scanner) more() bool {
	if s.err != nil || s.from == nil {
		return false
	}
	s.before += s.pos
	rest := copy(s.window[:cap(s.window)], s.window[s.pos:])
	s.window, s.pos = s.window[:rest], 0
	for range 100 { // as bufio does for readers that return nothing
		n, err := s.from.Read(s.window[rest:cap(s.window)])
		s.window = s.window[:rest+n]
		if err != nil {
			s.from = nil
			if !errors.Is(err, io.EOF) {
				s.fail(err)
				return false
			}
		}
		if n > 0 || err != nil {
			return n > 0
		}
	}
	s.fail(io.ErrNoProgress)
	return false
}

// fail keeps the first error and ends reading.
func (s *scanner) fail(err error) {
	if s.err == nil {
		s.err = err
	}
	s.window, s.pos = s.window[:0], 0
}

// unexpected fails for the next byte.
func (s *scanner) unexpected() {
	if s.pos >= len(s.window) {
		s.fail(errEnd)
		return
	}
	s.fail(fmt.Errorf("unexpected %q at byte %d", s.window[s.pos], s.before+s.pos))
}
