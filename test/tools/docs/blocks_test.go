package main

import (
	"encoding/json"
	"io/fs"
	"os"
	"regexp"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/pullpass/pullpass/test/harness/repo"
)

var (
	block    = regexp.MustCompile("(?ms)^( *)```(\\w+)\\n(.*?)^ *```")
	document = regexp.MustCompile(`(?ms)^cat > \S+\.json <<EOF\n(.*?)^EOF$`)
)

// TestBlocks parses the JSON and YAML of all pages, that in commands included.
func TestBlocks(t *testing.T) {
	root := os.DirFS(repo.Root())
	parsed := 0
	for _, pattern := range []string{"*.md", "docs/*.md", "charts/*/*.md"} {
		files, err := fs.Glob(root, pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			text, err := fs.ReadFile(root, file)
			if err != nil {
				t.Fatal(err)
			}
			for _, match := range block.FindAllStringSubmatch(string(text), -1) {
				indent, language, content := match[1], match[2], match[3]
				content = strings.ReplaceAll("\n"+content, "\n"+indent, "\n")
				switch language {
				case "json":
					parsed++
					if !json.Valid([]byte(content)) {
						t.Errorf("%s: no JSON:\n%s", file, content)
					}
				case "yaml":
					for part := range strings.SplitSeq(content, "\n---\n") {
						parsed++
						var into any
						if err := yaml.UnmarshalStrict([]byte(part), &into); err != nil {
							t.Errorf("%s: %v:\n%s", file, err, part)
						}
					}
				}
			}
			for _, match := range document.FindAllStringSubmatch(string(text), -1) {
				parsed++
				if !json.Valid([]byte(match[1])) {
					t.Errorf("%s: no JSON:\n%s", file, match[1])
				}
			}
		}
	}
	if parsed < 15 {
		t.Errorf("%d blocks: what was parsed?", parsed)
	}
}
