// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"strings"
	"unicode/utf8"

	"github.com/podmeter/podmeter/flows/plain"
)

// column is a column of a table.
type column struct {
	head string
	// right aligns it to the right: numbers.
	right bool
	// flexible lets it be cut short where the table is too wide.
	flexible bool
}

const (
	columnGap = 2
	leastFlex = 8
	ellipsis  = "…"
)

// layout returns a table as lines, the head first. No line is longer than width;
// 0 is no limit. Each cell is made plain, so that it is one.
func layout(columns []column, rows [][]string, width int) []string {
	rows = plainRows(rows)
	widths := make([]int, len(columns))
	head := make([]string, len(columns))
	for i, c := range columns {
		head[i], widths[i] = c.head, utf8.RuneCountInString(c.head)
		for _, row := range rows {
			widths[i] = max(widths[i], utf8.RuneCountInString(row[i]))
		}
	}
	fit(columns, widths, width)
	lines := []string{line(columns, widths, head, width)}
	for _, row := range rows {
		lines = append(lines, line(columns, widths, row, width))
	}
	return lines
}

func plainRows(rows [][]string) [][]string {
	all := make([][]string, len(rows))
	for i, row := range rows {
		for _, cell := range row {
			all[i] = append(all[i], plain.Text(cell, plain.MessageLimit))
		}
	}
	return all
}

// fit takes from the widest flexible column until the table is narrow enough.
func fit(columns []column, widths []int, width int) {
	total := columnGap * (len(widths) - 1)
	for _, w := range widths {
		total += w
	}
	for ; width > 0 && total > width; total-- {
		widest := -1
		for i, c := range columns {
			if c.flexible && widths[i] > leastFlex && (widest < 0 || widths[i] > widths[widest]) {
				widest = i
			}
		}
		if widest < 0 {
			return
		}
		widths[widest]--
	}
}

func line(columns []column, widths []int, cells []string, width int) string {
	var b strings.Builder
	for i, c := range columns {
		if i > 0 {
			b.WriteString(strings.Repeat(" ", columnGap))
		}
		cell := cut(cells[i], widths[i])
		padding := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
		if c.right {
			b.WriteString(padding + cell)
		} else {
			b.WriteString(cell + padding)
		}
	}
	text := strings.TrimRight(b.String(), " ")
	if width > 0 {
		text = cut(text, width)
	}
	return text
}

// cut shortens a text to at most width characters.
func cut(s string, width int) string {
	if utf8.RuneCountInString(s) <= width {
		return s
	}
	if width < 1 {
		return ""
	}
	return string([]rune(s)[:width-1]) + ellipsis
}
