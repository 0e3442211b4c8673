// Package setup edits kubeconfigs so that they use credcache, and explains what
// credcache would do for a context. Only the second program uses it: the
// initialization of the YAML package would slow down cache hits.
//
//	Install: lock → read → users → edits → apply → check → write
//
// A kubeconfig is never reformatted: each edit replaces a few bytes, so that
// comments, order, quoting and line ends are kept. Only the command and the args of
// exec users are edited. A user that cannot be edited in this way is left unchanged,
// and the reason is reported.
package setup

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// A document is a kubeconfig: its bytes and the parsed YAML.
type document struct {
	source []byte
	lines  []int // offset of each line
	root   *yaml.Node
}

// An execUser is a user in a kubeconfig that has an exec command.
type execUser struct {
	name       string
	command    *yaml.Node
	args       *yaml.Node // a sequence, or nil
	argv       []string   // the command and its arguments
	env        []string   // NAME=VALUE
	apiVersion string
	alias      *yaml.Node // the alias if the command is one, or nil
}

func parse(source []byte) (*document, error) {
	d := &document{source: source, lines: lineStarts(source)}
	var file yaml.Node
	if err := yaml.NewDecoder(bytes.NewReader(source)).Decode(&file); err != nil && !errors.Is(err, io.EOF) { // EOF: an empty file
		return nil, fmt.Errorf("parsing YAML: %w", err)
	}
	if len(file.Content) == 1 {
		d.root = file.Content[0]
	}
	return d, nil
}

// lineStarts returns the offsets of lines. In YAML a line ends with CR LF, CR, LF, or
// one of Unicode's line breaks.
func lineStarts(source []byte) []int {
	starts := []int{len(source) - len(bytes.TrimPrefix(source, []byte("\ufeff")))}
	for i := 0; i < len(source); {
		r, size := utf8.DecodeRune(source[i:])
		i += size
		switch {
		case r == '\r' && i < len(source) && source[i] == '\n':
			continue // the LF ends the line
		case r == '\n' || r == '\r' || r == '\u0085' || r == '\u2028' || r == '\u2029':
			starts = append(starts, i)
		}
	}
	return starts
}

// offset is the offset of a node. YAML counts columns in characters.
func (d *document) offset(n *yaml.Node) (int, error) {
	if n.Line < 1 || n.Line > len(d.lines) {
		return 0, errors.New("its position is unknown")
	}
	at := d.lines[n.Line-1]
	for range n.Column - 1 {
		if at >= len(d.source) {
			return 0, errors.New("its position is unknown")
		}
		_, size := utf8.DecodeRune(d.source[at:])
		at += size
	}
	return at, nil
}

// extent is where a scalar or an alias begins and ends, including its anchor and
// tag.
func (d *document) extent(n *yaml.Node) (start, end int, err error) {
	if start, err = d.offset(n); err != nil {
		return 0, 0, err
	}
	rest := d.source[start:]
	at := 0
	for at < len(rest) && (rest[at] == '&' || rest[at] == '!') { // anchor and tag
		at += bytes.IndexAny(append(slices.Clone(rest[at:]), ' '), " \t\r\n")
		at += len(rest[at:]) - len(bytes.TrimLeft(rest[at:], " \t"))
	}
	text := rest[at:]
	size := 0
	switch {
	case n.Kind == yaml.AliasNode:
		size = len("*" + n.Value)
		if !bytes.HasPrefix(text, []byte("*"+n.Value)) {
			size = 0
		}
	case n.Style&yaml.DoubleQuotedStyle != 0:
		for i := 1; i < len(text) && text[0] == '"'; i++ {
			if text[i] == '\\' {
				i++
			} else if text[i] == '"' {
				size = i + 1
				break
			}
		}
	case n.Style&yaml.SingleQuotedStyle != 0:
		for i := 1; i < len(text) && text[0] == '\''; i++ {
			if text[i] != '\'' {
				continue
			}
			if i+1 < len(text) && text[i+1] == '\'' {
				i++
				continue
			}
			size = i + 1
			break
		}
	case n.Style&(yaml.LiteralStyle|yaml.FoldedStyle) == 0:
		if bytes.HasPrefix(text, []byte(n.Value)) { // false if it spans several lines
			size = len(n.Value)
		}
	}
	if size == 0 {
		return 0, 0, fmt.Errorf("credcache cannot edit line %d because of its YAML style", n.Line)
	}
	return start, start + at + size, nil
}

// resolve follows an alias.
func resolve(n *yaml.Node) *yaml.Node {
	for n != nil && n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n
}

// field returns the value of a key in a mapping or in the mappings merged into it.
func field(n *yaml.Node, key string) *yaml.Node {
	if n = resolve(n); n == nil || n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if k := resolve(n.Content[i]); k.Kind == yaml.ScalarNode && k.Value == key && k.Tag != "!!merge" {
			return n.Content[i+1]
		}
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Tag != "!!merge" {
			continue
		}
		merged := []*yaml.Node{n.Content[i+1]}
		if m := resolve(merged[0]); m.Kind == yaml.SequenceNode {
			merged = m.Content
		}
		for _, m := range merged {
			if value := field(m, key); value != nil {
				return value
			}
		}
	}
	return nil
}

func items(n *yaml.Node) []*yaml.Node {
	if n = resolve(n); n != nil && n.Kind == yaml.SequenceNode {
		return n.Content
	}
	return nil
}

func text(n *yaml.Node) string {
	if n = resolve(n); n != nil && n.Kind == yaml.ScalarNode {
		return n.Value
	}
	return ""
}

// users returns the users of the kubeconfig that have an exec command.
func (d *document) users() []*execUser {
	var users []*execUser
	for _, item := range items(field(d.root, "users")) {
		exec := field(field(item, "user"), "exec")
		command := field(exec, "command")
		if text(command) == "" {
			continue
		}
		u := &execUser{name: text(field(item, "name")), command: resolve(command), argv: []string{text(command)}, apiVersion: text(field(exec, "apiVersion"))}
		if command.Kind == yaml.AliasNode {
			u.alias = command
		}
		if args := resolve(field(exec, "args")); args != nil && args.Kind == yaml.SequenceNode {
			u.args = args
			for _, a := range args.Content {
				u.argv = append(u.argv, text(a))
			}
		}
		for _, e := range items(field(exec, "env")) {
			u.env = append(u.env, text(field(e, "name"))+"="+text(field(e, "value")))
		}
		users = append(users, u)
	}
	return users
}

// commandNode is the node of the command, which may be an alias.
func (u *execUser) commandNode() *yaml.Node {
	if u.alias != nil {
		return u.alias
	}
	return u.command
}

// An edit replaces bytes of the source.
type edit struct {
	start, end int
	text       string
}

// apply applies edits, which must not overlap. Two users that share a part of the
// file may have the same edit.
func (d *document) apply(edits []edit) ([]byte, error) {
	slices.SortFunc(edits, func(a, b edit) int { return a.start - b.start })
	edits = slices.Compact(edits)
	var out []byte
	at := 0
	for _, e := range edits {
		if e.start < at {
			return nil, errors.New("two users share a part that would have to be changed in two ways")
		}
		out = append(append(out, d.source[at:e.start]...), e.text...)
		at = e.end
		if e.start == e.end {
			at = e.start
		}
	}
	return append(out, d.source[at:]...), nil
}

// wrap moves the command of a user to the front of its arguments and replaces it
// with another one. The quoting of the command is kept.
func (d *document) wrap(u *execUser, command, moved string) ([]edit, error) {
	start, end, err := d.extent(u.commandNode())
	if err != nil {
		return nil, err
	}
	raw := string(d.source[start:end])
	if moved != u.argv[0] {
		raw = quoteLike(u.commandNode(), moved)
	}
	insertion, err := d.insertFirst(u.args, raw)
	if err != nil {
		return nil, err
	}
	return []edit{{start, end, quoteLike(u.commandNode(), command)}, insertion}, nil
}

// insertFirst inserts an item at the beginning of a sequence.
func (d *document) insertFirst(sequence *yaml.Node, raw string) (edit, error) {
	if sequence == nil || len(sequence.Content) == 0 {
		return edit{}, errors.New("it has no args")
	}
	if sequence.Style&yaml.FlowStyle != 0 {
		at, err := d.offset(sequence.Content[0])
		if !strings.ContainsAny(raw[:1], `"'&*`) && strings.ContainsAny(raw, "[]{},") {
			raw = strconv.Quote(raw)
		}
		return edit{at, at, raw + ", "}, err
	}
	dash, err := d.dash(sequence.Content[0])
	if err != nil {
		return edit{}, err
	}
	indent := d.source[d.lines[d.lineOf(dash)]:dash]
	if len(bytes.TrimLeft(indent, " ")) > 0 {
		return edit{}, fmt.Errorf("credcache cannot edit line %d because of its YAML style", sequence.Line)
	}
	first, err := d.offset(sequence.Content[0])
	if err != nil {
		return edit{}, err
	}
	return edit{dash, dash, string(d.source[dash:first]) + raw + d.lineEnd(dash) + string(indent)}, nil
}

// dash is the offset of the "-" of an item in a block sequence.
func (d *document) dash(item *yaml.Node) (int, error) {
	at, err := d.offset(item)
	if err != nil {
		return 0, err
	}
	before := bytes.TrimRight(d.source[:at], " \t")
	if len(before) == 0 || before[len(before)-1] != '-' {
		return 0, fmt.Errorf("credcache cannot edit line %d because of its YAML style", item.Line)
	}
	return len(before) - 1, nil
}

// lineOf is the index of the line at an offset.
func (d *document) lineOf(offset int) int {
	n, found := slices.BinarySearch(d.lines, offset)
	if !found {
		n--
	}
	return n
}

// lineEnd is the line end of the line at an offset.
func (d *document) lineEnd(offset int) string {
	n := d.lineOf(offset) + 1
	if n < len(d.lines) && bytes.HasSuffix(d.source[:d.lines[n]], []byte("\r\n")) {
		return "\r\n"
	}
	return "\n"
}

// unwrap replaces the command with the first argument.
func (d *document) unwrap(u *execUser) ([]edit, error) {
	start, end, err := d.extent(u.commandNode())
	if err != nil {
		return nil, err
	}
	if u.args == nil || len(u.args.Content) < 2 {
		return nil, errors.New("its args contain no command")
	}
	first, second := u.args.Content[0], u.args.Content[1]
	itemStart, itemEnd, err := d.extent(first)
	if err != nil {
		return nil, err
	}
	from := itemStart
	to, err := d.offset(second)
	if err != nil {
		return nil, err
	}
	if u.args.Style&yaml.FlowStyle == 0 {
		if from, err = d.dash(first); err != nil {
			return nil, err
		}
		if to, err = d.dash(second); err != nil {
			return nil, err
		}
	}
	if between := strings.TrimLeft(string(d.source[itemEnd:to]), ", \t\r\n"); between != "" {
		return nil, fmt.Errorf("there is a comment after line %d; move it and try again", first.Line)
	}
	return []edit{{start, end, string(d.source[itemStart:itemEnd])}, {from, to, ""}}, nil
}

// replaceArgs replaces all arguments, in the same style. It refuses if there are
// comments between them, which would be lost.
func (d *document) replaceArgs(u *execUser, command string, args []string) ([]edit, error) {
	start, end, err := d.extent(u.commandNode())
	if err != nil {
		return nil, err
	}
	if u.args == nil || len(u.args.Content) == 0 {
		return nil, errors.New("it has no args")
	}
	first, last := u.args.Content[0], u.args.Content[len(u.args.Content)-1]
	from, err := d.offset(first)
	if err != nil {
		return nil, err
	}
	_, to, err := d.extent(last)
	if err != nil {
		return nil, err
	}
	for i, item := range u.args.Content {
		if item.HeadComment+item.FootComment != "" || item.LineComment != "" && i < len(u.args.Content)-1 {
			return nil, fmt.Errorf("there is a comment between its args, near line %d", item.Line)
		}
	}
	separator := ", "
	if u.args.Style&yaml.FlowStyle == 0 {
		dash, err := d.dash(first)
		if err != nil {
			return nil, err
		}
		indent := d.source[d.lines[d.lineOf(dash)]:dash]
		separator = d.lineEnd(dash) + string(indent) + string(d.source[dash:from])
	}
	quoted := make([]string, len(args))
	for i, a := range args {
		quoted[i] = quoteLike(first, a)
	}
	return []edit{{start, end, quoteLike(u.commandNode(), command)}, {from, to, strings.Join(quoted, separator)}}, nil
}

// quoteLike encodes a string as a scalar with the quoting of another one.
func quoteLike(n *yaml.Node, s string) string {
	plain := s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./:", r)
	}) && !strings.HasSuffix(s, ":") && !isOtherType(s)
	switch {
	case n.Style&yaml.SingleQuotedStyle != 0 && !strings.ContainsAny(s, "\r\n"):
		return "'" + strings.ReplaceAll(s, "'", "''") + "'"
	case n.Style&yaml.DoubleQuotedStyle != 0 || !plain:
		return strconv.Quote(s)
	}
	return s
}

// isOtherType reports whether YAML would parse a plain scalar as anything but this
// string.
func isOtherType(s string) bool {
	var n yaml.Node
	if yaml.Unmarshal([]byte(s), &n) != nil || len(n.Content) != 1 {
		return true
	}
	return n.Content[0].Kind != yaml.ScalarNode || n.Content[0].Tag != "!!str" || n.Content[0].Value != s
}

// check verifies that the edits changed what they should and nothing else: it
// compares the parsed files, with the new commands of the changed users.
func check(before, after []byte, want map[string][]string) error {
	var old, now any
	if err := yaml.Unmarshal(before, &old); err != nil {
		return err
	}
	if err := yaml.Unmarshal(after, &now); err != nil {
		return fmt.Errorf("the result would not be valid YAML: %w", err)
	}
	file, ok := old.(map[string]any)
	if !ok {
		return errors.New("it is not a kubeconfig")
	}
	users, ok := file["users"].([]any)
	if !ok {
		return errors.New("it has no users")
	}
	done := map[string]bool{} // of two users with the same name the first counts
	for i, item := range users {
		user, _ := item.(map[string]any)
		name, _ := user["name"].(string)
		argv := want[name]
		if argv == nil || done[name] {
			continue
		}
		done[name] = true
		inner, _ := user["user"].(map[string]any)
		exec, ok := inner["exec"].(map[string]any)
		if !ok {
			continue
		}
		// Aliases of a mapping share one map, which must not be changed twice.
		exec, inner, user = clone(exec), clone(inner), clone(user)
		args := make([]any, 0, len(argv))
		for _, a := range argv[1:] {
			args = append(args, a)
		}
		exec["command"], exec["args"] = argv[0], args
		inner["exec"], user["user"] = exec, inner
		users[i] = user
	}
	if !reflect.DeepEqual(withoutAnchors(old), withoutAnchors(now)) {
		return errors.New("the edit would change more than the command, perhaps because users share parts of the file through YAML anchors")
	}
	return nil
}

// withoutAnchors drops unknown top-level fields, in which people define YAML
// anchors.
func withoutAnchors(file any) any {
	m, ok := file.(map[string]any)
	if !ok {
		return file
	}
	known := map[string]any{}
	for _, k := range []string{"apiVersion", "kind", "clusters", "contexts", "users", "current-context", "preferences", "extensions"} {
		if v, ok := m[k]; ok {
			known[k] = v
		}
	}
	return known
}

func clone(m map[string]any) map[string]any {
	c := make(map[string]any, len(m))
	for k, v := range m {
		c[k] = v
	}
	return c
}

// programName is the name of a program without its folder and, on Windows, without
// its extension.
func programName(command string) string {
	base := filepath.Base(command)
	if runtime.GOOS == "windows" {
		base = strings.TrimSuffix(strings.ToLower(base), ".exe")
	}
	return base
}
