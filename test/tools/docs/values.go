package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"
)

// valuesTable returns a Markdown table of a chart's values. A comment that begins
// with "# --" describes the value below it; without one, a mapping is passed over
// for what it holds, and anything else is an error.
func valuesTable(values []byte) ([]byte, error) {
	var document yaml.Node
	if err := yaml.Unmarshal(values, &document); err != nil {
		return nil, fmt.Errorf("parsing values.yaml: %w", err)
	}
	out := bytes.NewBufferString("| value | default | description |\n| --- | --- | --- |\n")
	if err := writeRows(out, "", document.Content[0]); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

func writeRows(out *bytes.Buffer, path string, mapping *yaml.Node) error {
	for i := 0; i < len(mapping.Content); i += 2 {
		key, value := mapping.Content[i], mapping.Content[i+1]
		name := path + key.Value
		text, described := description(key.HeadComment)
		switch {
		case described:
			var plain any
			if err := value.Decode(&plain); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			standard, err := json.Marshal(plain)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			fmt.Fprintf(out, "| `%s` | `%s` | %s |\n", name, standard, strings.ReplaceAll(text, "|", `\|`))
		case value.Kind == yaml.MappingNode && len(value.Content) > 0:
			if err := writeRows(out, name+".", value); err != nil {
				return err
			}
		default:
			return fmt.Errorf("values.yaml does not say what %s is: its comment begins with # --", name)
		}
	}
	return nil
}

// description returns the text of the last comment before a key, if it is one for
// the table.
func description(comment string) (string, bool) {
	paragraphs := strings.Split(comment, "\n\n")
	text, ok := strings.CutPrefix(paragraphs[len(paragraphs)-1], "# --")
	return strings.Join(strings.Fields(strings.ReplaceAll(text, "\n#", "\n")), " "), ok
}
