package main

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/printers"
)

// apiVersion is that of what the commands print as JSON and YAML.
const apiVersion = "pullpass.dev/v1"

// object gives a value the kind that printers want.
func object(kind string, value any) (runtime.Object, error) {
	text, err := json.Marshal(value)
	if err != nil {
		return nil, err
	}
	fields := map[string]any{}
	if err := json.Unmarshal(text, &fields); err != nil {
		return nil, err
	}
	fields["apiVersion"], fields["kind"] = apiVersion, kind
	return &unstructured.Unstructured{Object: fields}, nil
}

// print prints a value by the output flags: as JSON, YAML or by a template.
func (p *plugin) print(flags *genericclioptions.PrintFlags, kind string, value any) error {
	o, err := object(kind, value)
	if err != nil {
		return err
	}
	printer, err := flags.ToPrinter()
	if err != nil {
		return usageError{err}
	}
	return printer.PrintObj(o, p.Out)
}

// addOutput adds kubectl's output flags to a command. Help shows -o with the formats
// that the command has.
func addOutput(cmd *cobra.Command, flags *genericclioptions.PrintFlags, formats string) {
	flags.AddFlags(cmd)
	for _, rare := range []string{"allow-missing-template-keys", "show-managed-fields", "template"} {
		cmd.Flag(rare).Hidden = true
	}
	cmd.Flag("output").Usage = "output format: " + formats + ", jsonpath=… or go-template=…"
}

// outputFlags are kubectl's. Without -o there is no printer.
func outputFlags() *genericclioptions.PrintFlags { return genericclioptions.NewPrintFlags("") }

// output returns the value of -o.
func output(flags *genericclioptions.PrintFlags) string { return *flags.OutputFormat }

// column is a column of a table. Wide ones show with -o wide.
type column struct {
	name string
	wide bool
}

// table prints rows as kubectl does.
func (p *plugin) table(columns []column, rows [][]any, wide, headers bool) error {
	t := &metav1.Table{}
	for _, c := range columns {
		definition := metav1.TableColumnDefinition{Name: c.name, Type: "string"}
		if c.wide {
			definition.Priority = 1
		}
		t.ColumnDefinitions = append(t.ColumnDefinitions, definition)
	}
	for _, row := range rows {
		t.Rows = append(t.Rows, metav1.TableRow{Cells: row})
	}
	return printers.NewTablePrinter(printers.PrintOptions{Wide: wide, NoHeaders: !headers}).PrintObj(t, p.Out)
}

// checkOutput refuses formats that a command does not have.
func checkOutput(format string, allowed ...string) error {
	name, _, _ := strings.Cut(format, "=")
	for _, a := range append(allowed, "", "json", "yaml", "jsonpath", "jsonpath-as-json", "jsonpath-file", "go-template", "go-template-file", "template", "templatefile", "kyaml") {
		if name == a {
			return nil
		}
	}
	return usageError{fmt.Errorf("--output=%q: must be one of json, yaml, jsonpath=…, go-template=…%s", format, strings.Join(append([]string{""}, allowed...), ", "))}
}
