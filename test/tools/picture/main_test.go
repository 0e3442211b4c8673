package main

import (
	"encoding/xml"
	"strings"
	"testing"
)

// TestDraw reads the picture back.
func TestDraw(t *testing.T) {
	var picture strings.Builder
	if err := draw(strings.NewReader("  0.1 s  1. cluster <real>\n\t$ kubectl label\nready & waiting\n"), &picture); err != nil {
		t.Fatal(err)
	}
	var svg struct {
		Height int `xml:"height,attr"`
		Text   []struct {
			Class string `xml:"class,attr"`
			Y     int    `xml:"y,attr"`
			Line  string `xml:",chardata"`
		} `xml:"text"`
	}
	if err := xml.NewDecoder(strings.NewReader(picture.String())).Decode(&svg); err != nil {
		t.Fatal(err)
	}
	want := [][2]string{{"step", "  0.1 s  1. cluster <real>"}, {"command", "        $ kubectl label"}, {"output", "ready & waiting"}}
	if len(svg.Text) != len(want) {
		t.Fatalf("%d lines, want %d", len(svg.Text), len(want))
	}
	for i, line := range svg.Text {
		if line.Class != want[i][0] || line.Line != want[i][1] {
			t.Errorf("line %d is %+v, want %q", i, line, want[i])
		}
		if i > 0 && line.Y <= svg.Text[i-1].Y || line.Y >= svg.Height {
			t.Errorf("line %d is at %d of %d", i, line.Y, svg.Height)
		}
	}
}
