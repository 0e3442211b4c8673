package report

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// A figure is a plot on the page, made from series of one section.
type figure struct {
	file    string // without its folder
	section string
	prefix  string   // of the series' names; what follows it is shown
	series  []string // in this order, with their prefix; empty: all
	title   string
	x, y    string
	bars    bool // or lines
	dots    bool // on lines
	cut     float64
}

// figures are all plots.
var figures = []figure{
	{file: "review-latency.svg", section: "webhook", prefix: "latency/", title: "A review of 6.6 KB", x: "latency in ms", y: "share of reviews", cut: 0.99},
	{file: "label-to-secret.svg", section: "scale", prefix: "label/", title: "From label to secret", x: "labelled namespaces", y: "ms", dots: true},
	{file: "memory.svg", section: "scale", prefix: "memory/", series: []string{"memory/renewer", "memory/webhook"}, title: "Resident memory", x: "labelled namespaces", y: "MiB", dots: true},
	{file: "renewal-requests.svg", section: "scale", prefix: "renewal/", title: "Requests to the API server after a credential was rotated", x: "seconds", y: "requests in a second"},
	{file: "credcache.svg", section: "credcache", prefix: "credcache/", title: "A token, by command", y: "ms, at the median", bars: true},
}

const width, height = 6.5 * vg.Inch, 3.5 * vg.Inch

// draw writes the figures that there are series for into a folder, and returns
// their files.
func drawFigures(dir string, results []*Result) (drawn map[string]bool, err error) {
	drawn = map[string]bool{}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	for _, f := range figures {
		i := slices.IndexFunc(results, func(r *Result) bool { return r.Section == f.section })
		if i < 0 {
			continue
		}
		svg, err := f.svg(results[i].Series)
		if err != nil {
			return nil, fmt.Errorf("drawing %s: %w", f.file, err)
		}
		if svg == nil {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, f.file), svg, 0o644); err != nil {
			return nil, err
		}
		drawn[f.file] = true
	}
	return drawn, nil
}

// svg draws the figure, or nothing if it has no series.
func (f figure) svg(all map[string][]Point) ([]byte, error) {
	names := f.series
	if names == nil {
		names = slices.Sorted(maps.Keys(all))
	}
	names = slices.DeleteFunc(slices.Clone(names), func(name string) bool {
		return !strings.HasPrefix(name, f.prefix) || len(all[name]) == 0
	})
	if len(names) == 0 {
		return nil, nil
	}
	p := plot.New()
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = f.title, f.x, f.y
	p.Title.Padding, p.X.Min, p.Y.Min = vg.Points(8), 0, 0
	for _, style := range []*draw.TextStyle{&p.Title.TextStyle, &p.X.Label.TextStyle, &p.Y.Label.TextStyle, &p.X.Tick.Label, &p.Y.Tick.Label, &p.Legend.TextStyle} {
		style.Font.Variant = "Sans"
	}
	p.Add(plotter.NewGrid())
	var err error
	if f.bars {
		err = f.addBars(p, names, all)
	} else {
		err = f.addLines(p, names, all)
	}
	if err != nil {
		return nil, err
	}
	canvas := vgsvg.New(width, height)
	const margin = vg.Length(10)
	p.Draw(draw.Crop(draw.New(canvas), margin, -2*margin, margin, -margin))
	var out bytes.Buffer
	_, err = canvas.WriteTo(&out)
	// Arial is as wide as Liberation Sans, for which the space was reckoned.
	return bytes.ReplaceAll(out.Bytes(), []byte("font-family:Liberation Sans"), []byte("font-family:Liberation Sans,Arial,Helvetica,sans-serif")), err
}

func (f figure) addLines(p *plot.Plot, names []string, all map[string][]Point) error {
	p.Legend.Top, p.Legend.Left = f.cut == 0, f.cut == 0 // where no line is
	p.Legend.Padding = vg.Points(2)
	for i, name := range names {
		var points plotter.XYs
		for _, point := range all[name] {
			if f.cut == 0 || point.Y <= f.cut { // the last few are far away
				points = append(points, plotter.XY{X: point.X, Y: point.Y})
			}
		}
		line, dots, err := plotter.NewLinePoints(points)
		if err != nil {
			return err
		}
		line.Color, line.Width = plotutil.DarkColors[i%len(plotutil.DarkColors)], vg.Points(1.5)
		dots.Color, dots.Shape = line.Color, draw.CircleGlyph{}
		p.Add(line)
		if f.dots {
			p.Add(dots)
		}
		p.Legend.Add(strings.TrimPrefix(name, f.prefix), line)
	}
	p.Y.Max *= 1.05
	return nil
}

// addBars draws one horizontal bar for each series, which has one point: its X
// says where it stands, its Y how long it is. Lengths differ a hundredfold, so
// their scale is logarithmic, which plotter's own bars, that begin at 0, cannot be
// on.
func (f figure) addBars(p *plot.Plot, names []string, all map[string][]Point) error {
	slices.SortFunc(names, func(a, b string) int { return cmp.Compare(all[b][0].X, all[a][0].X) })
	least, greatest := all[names[0]][0].Y, all[names[0]][0].Y
	for _, name := range names {
		least, greatest = min(least, all[name][0].Y), max(greatest, all[name][0].Y)
	}
	p.X.Label.Text, p.Y.Label.Text = f.y, ""
	p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	p.X.Min, p.X.Max = least/2, greatest*3
	var labels []string
	var ends plotter.XYLabels
	for i, name := range names {
		value, y := all[name][0].Y, float64(i)
		bar, err := plotter.NewLine(plotter.XYs{{X: p.X.Min, Y: y}, {X: value, Y: y}})
		if err != nil {
			return err
		}
		bar.Color, bar.Width = plotutil.DarkColors[2], vg.Points(14)
		p.Add(bar)
		// The spaces leave room for a font that is wider than the one reckoned with.
		label := strings.TrimPrefix(name, f.prefix)
		labels = append(labels, label+strings.Repeat(" ", len(label)/4))
		ends.XYs = append(ends.XYs, plotter.XY{X: value, Y: y})
		ends.Labels = append(ends.Labels, fmt.Sprintf(" %.1f ms", value))
	}
	p.NominalY(labels...)
	p.Y.Padding = vg.Points(4)
	p.Y.Min, p.Y.Max = -0.5, float64(len(names))-0.5
	texts, err := plotter.NewLabels(ends)
	if err != nil {
		return err
	}
	for i := range texts.TextStyle {
		texts.TextStyle[i].Font.Variant, texts.TextStyle[i].YAlign = "Sans", draw.YCenter
	}
	p.Add(texts)
	return nil
}
