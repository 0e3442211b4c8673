package credcache

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// keyFormat is an input of every key: a change of what follows makes new ones.
const keyFormat = "1"

// A Key is the name under which the cache keeps a command's token. It is a hash
// under the cache's own secret, so that it tells nothing about the inputs.
type Key [sha256.Size]byte

func (k Key) String() string { return hex.EncodeToString(k[:]) }

// An Input is one thing that could change whose token a command prints.
type Input struct {
	Name   string // for people, such as AWS_PROFILE or file ~/.aws/config
	Value  string // verbatim, and perhaps secret
	Absent bool   // not set, or not there: differs from an empty value
}

// Inputs are all that the key is made of, in a fixed order.
type Inputs []Input

// Key hashes the inputs. Every name and value stands behind its length, so that
// no two lists of inputs look the same.
func (in Inputs) Key(secret []byte) Key {
	mac := hmac.New(sha256.New, secret)
	buffer := make([]byte, 0, 4096)
	for _, i := range in {
		buffer = i.append(buffer[:0])
		mac.Write(buffer)
	}
	return Key(mac.Sum(nil))
}

// append adds the input as tag, lengths and values.
func (i Input) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(len(i.Name)))
	b = append(b, i.Name...)
	if i.Absent {
		return append(b, 0)
	}
	b = append(b, 1)
	b = binary.BigEndian.AppendUint64(b, uint64(len(i.Value)))
	return append(b, i.Value...)
}

// A Digest says which value an input had without telling it: it is a hash under
// the cache's secret.
type Digest struct {
	Name string `json:"name"`
	Hash string `json:"hash"`
}

// Digests hashes each input by itself, so that a later run can say which one
// changed.
func (in Inputs) Digests(secret []byte) []Digest {
	digests := make([]Digest, len(in))
	for n, i := range in {
		mac := hmac.New(sha256.New, secret)
		mac.Write(i.append([]byte("digest")))
		digests[n] = Digest{Name: i.Name, Hash: hex.EncodeToString(mac.Sum(nil)[:8])}
	}
	return digests
}

// Variables that begin with AWS_ and cannot matter to a token.
var ignoredVariables = []string{"AWS_PAGER", "AWS_CLI_AUTO_PROMPT", "AWS_EXECUTION_ENV"}

// Variables that matter besides those that begin with AWS_. The files that the
// last ones name or imply are inputs too.
var otherVariables = []string{
	"HOME", "USERPROFILE", "HOMEDRIVE", "HOMEPATH", "XDG_CONFIG_HOME", "BOTO_CONFIG",
	"KUBERNETES_AWS_AUTHENTICATOR_CLUSTER_ID", "DEFAULT_ROLE",
}

// Variables that differ between two terminals of one user and say nothing about
// who that is. They are left out where all others count.
var terminalVariables = []string{
	execInfoVariable, "_", "SHLVL", "PWD", "OLDPWD", "TERM", "TERM_PROGRAM", "TERM_PROGRAM_VERSION",
	"TERM_SESSION_ID", "ITERM_SESSION_ID", "COLORTERM", "WINDOWID", "COLUMNS", "LINES", "SSH_TTY",
	"SSH_CLIENT", "SSH_CONNECTION", "TMUX", "TMUX_PANE", "STY", "WINDOW", "GPG_TTY", "VTE_VERSION",
	"SECURITYSESSIONID", "XDG_SESSION_ID", "KUBECACHEDIR",
}

// Inputs collects what could change whose token the command prints. Files count
// by their contents, not by their times. The error says why the command's token
// cannot be cached, such as an input that can be read only once.
func (c *Command) Inputs(info ExecInfo) (Inputs, error) {
	in := collector{env: c.env}
	in.add("format", keyFormat)
	in.add("effective user", strconv.Itoa(os.Geteuid()))
	shim := false
	for _, p := range c.programs {
		in.program(p)
		shim = shim || slices.Contains(strings.Split(filepath.ToSlash(p.path), "/"), "shims")
	}
	in.add("number of arguments", strconv.Itoa(len(c.Args)))
	for i, arg := range c.Args {
		in.add("argument "+strconv.Itoa(i), arg)
	}
	if shim || c.kind == otherMaker { // a shim's folder decides what it runs
		dir, err := os.Getwd()
		if err != nil {
			return nil, fmt.Errorf("asking for the working directory: %w", err)
		}
		in.add("working directory", dir)
	}

	config := in.awsFiles()
	if c.kind == authenticatorMaker {
		for _, path := range c.configFiles() {
			in.file("file "+path, path)
		}
		in.file("aws-iam-authenticator's cache", filepath.Join(c.env.home(), ".kube/cache/aws-iam-authenticator/credentials.yaml"))
		in.namedFile("AWS_IAM_AUTHENTICATOR_CACHE_FILE")
	}
	for _, path := range c.wrapperFiles {
		in.file("file ~/"+path, filepath.Join(c.env.home(), path))
	}
	c.runsOthers = strings.Contains(config, "credential_process")
	in.variables(c.kind == otherMaker || c.mayPrompt || c.runsOthers)
	if c.kind == otherMaker {
		in.optional("spec.cluster", string(info.cluster), info.cluster == nil)
	}
	return in.inputs, in.err
}

// changed reports whether the inputs are others by now.
func (c *Command) changed(info ExecInfo, inputs Inputs) bool {
	now, err := c.Inputs(info)
	return err != nil || !slices.Equal(now, inputs)
}

// A collector gathers inputs and remembers the first trouble.
type collector struct {
	env    Environment
	inputs Inputs
	err    error
}

func (c *collector) add(name, value string) { c.optional(name, value, false) }

func (c *collector) optional(name, value string, absent bool) {
	c.inputs = append(c.inputs, Input{Name: name, Value: value, Absent: absent})
}

// program adds a program's name, where it was found and which file that is.
func (c *collector) program(p program) {
	c.add("program", p.name)
	c.add("path of "+p.name, p.path)
	info, err := os.Stat(p.path)
	if err != nil {
		c.optional("file of "+p.name, "", true)
		return
	}
	c.add("size of "+p.name, strconv.FormatInt(info.Size(), 10))
	c.add("time of "+p.name, strconv.FormatInt(info.ModTime().UnixNano(), 10))
	c.add("inode of "+p.name, strconv.FormatUint(inode(info), 10))
}

// variables adds the variables that matter, or with all every variable but those
// of the terminal. What they stand in is no input: the order means nothing.
func (c *collector) variables(all bool) {
	var found []Input
	for _, entry := range c.env {
		name, value, ok := cutVariable(entry)
		switch {
		case !ok || slices.Contains(ignoredVariables, name):
		case sameVariable(name[:min(4, len(name))], "AWS_") || slices.Contains(otherVariables, name),
			all && !slices.Contains(terminalVariables, name):
			found = append(found, Input{Name: name, Value: value})
		}
	}
	slices.SortFunc(found, func(a, b Input) int { return strings.Compare(a.Name, b.Name) })
	c.inputs = append(c.inputs, found...)
	c.add("number of variables", strconv.Itoa(len(found)))
}

// awsFiles adds the files that the AWS tools read, and returns what the two
// configuration files hold.
func (c *collector) awsFiles() (config string) {
	aws := filepath.Join(c.env.home(), ".aws")
	if c.env.home() == "" {
		aws = "" // then the tools ask the system, and so does nobody here
		c.err = errors.New("finding the AWS configuration: there is no home folder in the environment")
	}
	config = c.file("file ~/.aws/config", filepath.Join(aws, "config")) +
		c.file("file ~/.aws/credentials", filepath.Join(aws, "credentials")) +
		c.namedFile("AWS_CONFIG_FILE") +
		c.namedFile("AWS_SHARED_CREDENTIALS_FILE")
	c.file("file ~/.aws/cli/alias", filepath.Join(aws, "cli/alias"))
	c.folder("AWS SSO login", filepath.Join(aws, "sso/cache"))
	c.folder("aws login", filepath.Join(aws, "login/cache"))
	if dir := c.env.Get("AWS_LOGIN_CACHE_DIRECTORY"); dir != "" {
		c.folder("aws login in AWS_LOGIN_CACHE_DIRECTORY", c.env.expand(dir))
	}
	for _, name := range []string{"AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "AWS_CREDENTIAL_FILE", "BOTO_CONFIG"} {
		c.namedFile(name)
	}
	c.file("file /etc/boto.cfg", "/etc/boto.cfg")
	c.file("file ~/.boto", filepath.Join(c.env.home(), ".boto"))
	for line := range strings.Lines(config) {
		if name, path, ok := strings.Cut(line, "="); ok && strings.TrimSpace(name) == "web_identity_token_file" {
			path = strings.TrimSpace(path)
			c.file("file "+path, c.env.expand(path))
		}
	}
	return config
}

// namedFile adds the file that a variable names. The tools differ in whether
// they replace ~ and variables in the name, so both readings count.
func (c *collector) namedFile(variable string) string {
	path := c.env.Get(variable)
	if path == "" {
		return ""
	}
	content := c.file("file in "+variable, path)
	if expanded := c.env.expand(path); expanded != path {
		content += c.file("expanded file in "+variable, expanded)
	}
	return content
}

// file adds what a file holds. A pipe can be read once, and that is the
// command's to do.
func (c *collector) file(name, path string) string {
	info, err := os.Stat(path)
	if err != nil || info.IsDir() {
		c.optional(name, "", true)
		return ""
	}
	if !info.Mode().IsRegular() && path != os.DevNull {
		c.err = fmt.Errorf("reading %s: not a regular file", path)
		return ""
	}
	content, err := os.ReadFile(path)
	if err != nil { // the command cannot read it either
		c.optional(name, "", true)
		return ""
	}
	c.add(name, string(content))
	return string(content)
}

// folder adds the names and contents of a folder's files.
func (c *collector) folder(name, path string) {
	entries, err := os.ReadDir(path) // sorted
	if err != nil {
		c.optional(name, "", true)
		return
	}
	var all []byte
	for _, e := range entries {
		content, err := os.ReadFile(filepath.Join(path, e.Name()))
		all = Input{Name: e.Name(), Value: string(content), Absent: err != nil}.append(all)
	}
	c.add(name, string(all))
}
