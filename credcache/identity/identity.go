// Package identity determines what decides whose token a command prints.
//
// The [Inputs] are everything that can change it: the programs, the arguments, the
// variables, and the contents of the files that the AWS configuration refers to.
// Their hash is the key of the cached token. If something decides that credcache
// cannot see, such as a credential_process, a credential server or a file that is
// not a regular one, the identity is [Identity.Opaque] and the token is not cached.
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

// An Identity is what credcache knows about whose token a command prints.
type Identity struct {
	Inputs Inputs
	// Opaque says what else decides that credcache cannot see. If it is not empty,
	// the token is not cached.
	Opaque []command.Opaque
	// Prompts is set if the command may prompt the user.
	Prompts bool
	// Expires is when the credentials expire, or zero if they do not say so.
	Expires time.Time
	// Signers are the access keys, one of which signs the token unless an argument
	// names a role. It is empty if the key is not known in advance, as for sessions.
	Signers []string

	logins       []string // names of the inputs that are logins of AWS SSO or aws login
	loginFolders []string // of those of aws login
}

// usualInputs is a capacity that is rarely exceeded. A slice that grows touches new
// memory at each step, which is a noticeable part of a cache hit.
const usualInputs = 64

// Of collects the identity of a command, for a client's request.
func Of(c *command.Command, info execcredential.Info) Identity {
	o := &collector{command: c, env: c.Env, vouched: c.Allowed}
	o.identity.Inputs = make(Inputs, 0, usualInputs)
	o.identity.Opaque = slices.Clone(c.Opaque)
	o.collect(info)
	o.identity.Prompts = o.identity.Prompts || o.vouched || len(c.Wrappers) > 0
	return o.identity
}

// Same reports whether two identities have the same inputs.
func (i Identity) Same(other Identity) bool {
	return slices.Equal(i.Inputs, other.Inputs) && len(i.Opaque) == len(other.Opaque)
}

// A collector gathers an identity.
type collector struct {
	command  *command.Command
	env      environ.List
	vouched  bool // the user's configuration allows something that credcache cannot see
	identity Identity
}

func (o *collector) add(name, value string) { o.optional(name, value, false) }

func (o *collector) optional(name, value string, absent bool) {
	o.identity.Inputs = append(o.identity.Inputs, Input{Name: name, Value: value, Absent: absent})
}

func (o *collector) opaque(what, advice string) {
	o.identity.Opaque = append(o.identity.Opaque, command.Opaque{What: what, Advice: advice})
}

// maxFile limits the size of each input file, in bytes. The configuration of a
// thousand profiles has a fifth of it.
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
		o.opaque("HOME is not set, so the AWS tools look for the home folder elsewhere", "set HOME")
		return
	}
	if c.Kind == command.AWS {
		if c.LoadsArguments() {
			o.opaque("the AWS CLI reads the value of an argument from a file or a server", "write the value itself")
		}
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

// program adds the name, the path and the file identity of a program.
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

// file adds the contents of a file, and returns them.
func (o *collector) file(name, path string) []byte {
	content, err := files.Read(path, maxFile)
	switch {
	case err == nil:
		o.add(name, string(content))
	case errors.Is(err, fs.ErrNotExist):
		o.optional(name, "", true)
	default:
		o.opaque(path+" cannot be read: "+err.Error(), "")
	}
	return content
}

// aliases adds the AWS CLI's aliases, which could make eks get-token run anything
// else.
func (o *collector) aliases() {
	content := o.file("file ~/.aws/cli/alias", filepath.Join(o.env.Home(), ".aws", "cli", "alias"))
	switch changed, err := awsconfig.Alias(content, "eks"); {
	case o.command.Allowed:
	case err != nil:
		o.opaque(err.Error(), "correct ~/.aws/cli/alias")
	case changed:
		o.opaque("the AWS CLI's alias file redefines eks", "rename the alias")
	}
}

// awsConfig adds the configuration and credentials files of the AWS tools and parses
// them. It returns nil if that fails, and for commands of unknown programs.
func (o *collector) awsConfig() *awsconfig.Config {
	config := o.configFile("AWS_CONFIG_FILE", "config")
	credentials := o.configFile("AWS_SHARED_CREDENTIALS_FILE", "credentials")
	if o.command.Kind == command.Other {
		return nil
	}
	parsed, err := awsconfig.Parse(config, credentials)
	if err != nil {
		if !o.command.Allowed {
			o.opaque(err.Error(), "correct it; aws configure list-profiles shows whether the AWS CLI accepts it")
		}
		return nil
	}
	return parsed
}

// likeAWS reports whether the command reads the AWS configuration as the AWS CLI
// does.
func (o *collector) likeAWS() bool {
	return o.command.Kind == command.AWS || o.command.Kind == command.Helper
}

// configFile adds one of these files. The AWS CLI expands ~ and variables in its
// path, and an empty path means no file. The other tools do not expand it, and an
// empty path means the default.
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
		o.opaque(variable+" cannot be expanded: "+err.Error(), "set it to a full path")
		return nil
	}
	if o.command.Kind == command.Other {
		label = "expanded " + label
	}
	return o.file(label, expanded)
}

// Variables that begin with AWS_ and do not affect tokens.
var ignoredVariables = []string{"AWS_PAGER", "AWS_CLI_AUTO_PROMPT", "AWS_EXECUTION_ENV"}

// Other variables that affect tokens.
var otherVariables = []string{
	"HOME", "USERPROFILE", "HOMEDRIVE", "HOMEPATH", "XDG_CONFIG_HOME", "BOTO_CONFIG",
	"KUBERNETES_AWS_AUTHENTICATOR_CLUSTER_ID", "DEFAULT_ROLE",
}

// variables adds the variables that affect the token, sorted by name. For a command
// that the user's configuration allows, these are all variables except those that
// only identify a terminal or a run.
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
	var found Inputs
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
	found.sort()
	o.identity.Inputs = append(o.identity.Inputs, found...)
}

// Environment hashes all variables that could make a command fail: those that only
// identify a terminal, a shell or a run do not.
func Environment(env environ.List, secret []byte) string {
	var all Inputs
	for _, entry := range env {
		if name, value, ok := environ.Cut(entry); ok && !ofSession(name) {
			all = append(all, Input{Name: name, Value: value})
		}
	}
	all.sort()
	return all.Key(secret).String()
}

// ofWrapper reports whether a variable configures one of the wrappers, or a store
// in which they keep keys.
func ofWrapper(name string) bool {
	for _, prefix := range []string{"SAML2AWS_", "OKTA_", "OP_", "PASSWORD_STORE_"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return name == "GNUPGHOME" || name == "XDG_DATA_HOME"
}

// ofSession reports whether a variable identifies a terminal, a shell or a run, and
// not a user.
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
