// Package identity tells what decides whose token a command prints.
//
// The [Inputs] are all that can change it: the programs, the arguments, the
// variables, and the contents of the files that are in force, of which the AWS
// configuration says which. Their hash is the key under which a token is kept.
// What cannot be seen makes the whole [Identity.Opaque], and nothing is kept: a
// credential_process in force, a server that hands out credentials, a file that
// is not one.
package identity

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pullpass/pullpass/credcache/awsconfig"
	"github.com/pullpass/pullpass/credcache/command"
	"github.com/pullpass/pullpass/credcache/environ"
	"github.com/pullpass/pullpass/credcache/execcredential"
	"github.com/pullpass/pullpass/credcache/files"
)

// An Identity is what can be known of whose token a command prints.
type Identity struct {
	Inputs Inputs
	// Opaque says what else decides, and cannot be seen. Then nothing is cached.
	Opaque []command.Opaque
	// Prompts is set where the command may ask its user something.
	Prompts bool
	// Expires is when the credentials end, where they say so themselves; or zero.
	Expires time.Time
	// Signers are the access keys of which one signs the token, unless an argument
	// names a role. It is empty if that is not known, as for sessions.
	Signers []string

	logins       []string // names of the inputs that are logins of AWS SSO or aws login
	loginFolders []string // of those of aws login
}

// Of collects the identity of a command, for what the client asks.
func Of(c *command.Command, info execcredential.Info) Identity {
	o := &collector{command: c, env: c.Env, vouched: c.Allowed}
	o.identity.Opaque = slices.Clone(c.Opaque)
	o.collect(info)
	o.identity.Prompts = o.identity.Prompts || o.vouched || len(c.Wrappers) > 0
	return o.identity
}

// Same reports whether two are told apart by nothing that is seen.
func (i Identity) Same(other Identity) bool {
	return slices.Equal(i.Inputs, other.Inputs) && len(i.Opaque) == len(other.Opaque)
}

// A collector gathers an identity.
type collector struct {
	command  *command.Command
	env      environ.List
	vouched  bool // the user's configuration allows what cannot be seen
	identity Identity
}

func (o *collector) add(name, value string) { o.optional(name, value, false) }

func (o *collector) optional(name, value string, absent bool) {
	o.identity.Inputs = append(o.identity.Inputs, Input{Name: name, Value: value, Absent: absent})
}

func (o *collector) opaque(what, advice string) {
	o.identity.Opaque = append(o.identity.Opaque, command.Opaque{What: what, Advice: advice})
}

// maxFile bounds every file that decides, in bytes. A configuration of a thousand
// profiles has a fifth of it.
const maxFile = 1 << 20

func (o *collector) collect(info execcredential.Info) {
	c := o.command
	o.add("format", keyFormat)
	o.add("effective user", strconv.Itoa(os.Geteuid()))
	for _, p := range c.Programs {
		o.program(p)
	}
	for i, arg := range c.Args {
		o.add("argument "+strconv.Itoa(i), arg)
	}
	if o.env.Home() == "" {
		o.opaque("there is no home folder in the environment, so the AWS tools look for one elsewhere", "set HOME")
		return
	}
	if c.Kind == command.AWS {
		o.aliases()
	}
	config := o.awsConfig()
	if config != nil {
		o.source(config)
	}
	if c.Kind == command.Authenticator {
		for _, path := range c.ConfigFiles() {
			o.file("file "+path, path)
		}
		o.file("aws-iam-authenticator's cache", filepath.Join(o.env.Home(), ".kube/cache/aws-iam-authenticator/credentials.yaml"))
		if path := o.env.Get("AWS_IAM_AUTHENTICATOR_CACHE_FILE"); path != "" {
			o.file("file in AWS_IAM_AUTHENTICATOR_CACHE_FILE", path)
		}
	}
	for _, w := range c.Wrappers {
		for _, path := range w.Files {
			o.file("file ~/"+path, filepath.Join(o.env.Home(), path))
		}
	}
	o.variables()
	if o.vouched {
		dir, err := os.Getwd()
		if err != nil {
			o.opaque("the working directory is not known", "")
		}
		o.add("working directory", dir)
	}
	if c.Kind == command.Other {
		o.optional("spec.cluster", string(info.Cluster), info.Cluster == nil)
	}
}

// program adds a program's name, where it was found and which file that is.
func (o *collector) program(p command.Program) {
	o.add("program", p.Name)
	o.add("path of "+p.Name, p.Path)
	info, err := os.Stat(p.Path)
	if err != nil {
		o.optional("file of "+p.Name, "", true)
		return
	}
	id := files.IdentityOf(info)
	o.add("size of "+p.Name, strconv.FormatInt(id.Size, 10))
	o.add("time of "+p.Name, strconv.FormatInt(id.Times[0], 10))
	o.add("change of "+p.Name, strconv.FormatInt(id.Times[1], 10))
	o.add("inode of "+p.Name, strconv.FormatUint(id.Device, 10)+":"+strconv.FormatUint(id.Inode, 10))
}

// file adds what a file holds, and returns that.
func (o *collector) file(name, path string) []byte {
	content, err := files.Read(path, maxFile)
	switch {
	case err == nil:
		o.add(name, string(content))
	case errors.Is(err, fs.ErrNotExist):
		o.optional(name, "", true)
	default:
		o.opaque(path+" cannot be read as a file: "+err.Error(), "")
	}
	return content
}

// aliases adds the AWS CLI's aliases, which could make eks get-token run anything.
func (o *collector) aliases() {
	content := o.file("file ~/.aws/cli/alias", filepath.Join(o.env.Home(), ".aws", "cli", "alias"))
	switch changed, err := awsconfig.Alias(content, "eks"); {
	case o.command.Allowed:
	case err != nil:
		o.opaque("the AWS CLI's aliases are not understood: "+err.Error(), "")
	case changed:
		o.opaque("the AWS CLI's alias file gives eks another meaning", "rename the alias")
	}
}

// awsConfig adds the AWS tools' two configuration files and parses them. It
// returns nil where that fails, and where nobody knows what reads them.
func (o *collector) awsConfig() *awsconfig.Config {
	config := o.configFile("AWS_CONFIG_FILE", "config")
	credentials := o.configFile("AWS_SHARED_CREDENTIALS_FILE", "credentials")
	if o.command.Kind == command.Other {
		return nil
	}
	parsed, err := awsconfig.Parse(config, credentials)
	if err != nil {
		if !o.command.Allowed {
			o.opaque(err.Error(), "mend it; aws configure list-profiles says whether the AWS CLI takes it")
		}
		return nil
	}
	return parsed
}

// likeAWS reports whether the AWS configuration is read as the AWS CLI reads it.
func (o *collector) likeAWS() bool {
	return o.command.Kind == command.AWS || o.command.Kind == command.Helper
}

// configFile adds one of them. The AWS CLI replaces ~ and variables in its name,
// and an empty name is that of no file; the other tools take the name as it is,
// and an empty one for none.
func (o *collector) configFile(variable, name string) []byte {
	path, set := o.env.Lookup(variable)
	if !set || path == "" && !o.likeAWS() {
		return o.file("file ~/.aws/"+name, filepath.Join(o.env.Home(), ".aws", name))
	}
	label := "file in " + variable
	if !o.likeAWS() {
		content := o.file(label, path)
		if o.command.Kind != command.Other {
			return content
		}
	}
	expanded, err := o.env.Expand(path)
	if err != nil {
		o.opaque("where "+variable+" leads is not known: "+err.Error(), "name the file by its full path")
		return nil
	}
	if o.command.Kind == command.Other {
		label = "expanded " + label
	}
	return o.file(label, expanded)
}

// Variables that begin with AWS_ and cannot matter to a token.
var ignoredVariables = []string{"AWS_PAGER", "AWS_CLI_AUTO_PROMPT", "AWS_EXECUTION_ENV"}

// Variables that matter besides those that begin with AWS_.
var otherVariables = []string{
	"HOME", "USERPROFILE", "HOMEDRIVE", "HOMEPATH", "XDG_CONFIG_HOME", "BOTO_CONFIG",
	"KUBERNETES_AWS_AUTHENTICATOR_CLUSTER_ID", "DEFAULT_ROLE",
}

// variables adds the variables that matter, where the user vouches for a command
// every one but those that tell two terminals or runs of one user apart. What
// they stand in is no input: the order means nothing.
func (o *collector) variables() {
	var ignored []string
	if o.vouched {
		config, err := o.command.Config()
		if err != nil {
			o.opaque(err.Error(), "")
		}
		ignored = config.Ignored
	}
	python := slices.ContainsFunc(o.command.Programs, func(p command.Program) bool { return strings.HasPrefix(p.Name, "interpreter of ") })
	var found []Input
	for _, entry := range o.env {
		name, value, ok := environ.Cut(entry)
		switch {
		case !ok || slices.Contains(ignoredVariables, name):
		case environ.Same(name[:min(4, len(name))], "AWS_") || slices.Contains(otherVariables, name),
			python && strings.HasPrefix(name, "PYTHON"),
			len(o.command.Wrappers) > 0 && ofWrapper(name),
			o.vouched && !ofSession(name) && !slices.Contains(ignored, name):
			found = append(found, Input{Name: name, Value: value})
		}
	}
	slices.SortFunc(found, func(a, b Input) int { return strings.Compare(a.Name, b.Name) })
	o.identity.Inputs = append(o.identity.Inputs, found...)
}

// ofWrapper reports whether a variable configures one of the programs that stand
// before a maker, or the stores that they keep keys in.
func ofWrapper(name string) bool {
	for _, prefix := range []string{"SAML2AWS_", "OKTA_", "OP_", "PASSWORD_STORE_"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return name == "GNUPGHOME" || name == "XDG_DATA_HOME"
}

// ofSession reports whether a variable tells two terminals, shells or runs of one
// user apart and says nothing about who that is.
func ofSession(name string) bool {
	switch name {
	case execcredential.Variable, "_", "SHLVL", "PWD", "OLDPWD", "KUBECACHEDIR", "KUBECONFIG",
		"TERM", "TERM_PROGRAM", "TERM_PROGRAM_VERSION", "TERM_SESSION_ID", "COLORTERM", "COLUMNS", "LINES",
		"WINDOWID", "WINDOW", "STY", "TMUX", "TMUX_PANE", "VTE_VERSION", "ITERM_SESSION_ID", "KITTY_WINDOW_ID", "KITTY_PID",
		"WEZTERM_PANE", "WEZTERM_UNIX_SOCKET", "ZELLIJ", "ZELLIJ_PANE_ID", "ZELLIJ_SESSION_NAME", "ALACRITTY_WINDOW_ID",
		"SSH_TTY", "SSH_CLIENT", "SSH_CONNECTION", "SSH_AUTH_SOCK", "SSH_AGENT_PID", "GPG_TTY",
		"SECURITYSESSIONID", "XDG_SESSION_ID", "INVOCATION_ID", "JOURNAL_STREAM", "SYSTEMD_EXEC_PID",
		"ATUIN_HISTORY_ID", "ATUIN_SESSION", "STARSHIP_SESSION_KEY", "STARSHIP_SHELL", "FNM_MULTISHELL_PATH",
		"MAKEFLAGS", "MFLAGS", "MAKELEVEL", "PLUGIN_CLIENT_CERT", "PLUGIN_MIN_PORT", "PLUGIN_MAX_PORT", "PLUGIN_PROTOCOL_VERSIONS",
		"GITHUB_OUTPUT", "GITHUB_ENV", "GITHUB_PATH", "GITHUB_STATE", "GITHUB_STEP_SUMMARY":
		return true
	}
	return strings.HasPrefix(name, "DIRENV_") || strings.HasPrefix(name, "__MISE_") || strings.HasPrefix(name, "VSCODE_")
}
