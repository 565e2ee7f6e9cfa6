// SPDX-License-Identifier: Apache-2.0

// Package table lays out tables of text for terminals, their numbers aligned and their
// widest columns cut where there is not room enough. It holds no state.
package table

import (
	"strings"
	"unicode/utf8"

	"github.com/podmeter/podmeter/flows/plain"
)

// Column is a column of a table.
type Column struct {
	Head string
	// Right aligns it to the right: numbers.
	Right bool
	// Flexible lets it be cut short where the table is too wide.
	Flexible bool
}

const (
	columnGap = 2
	leastFlex = 8
	ellipsis  = "…"
)

// Layout returns a table as lines, the head first. No line is longer than width;
// 0 is no limit. Each cell is made plain, so that it is one.
func Layout(columns []Column, rows [][]string, width int) []string {
	rows = plainRows(rows)
	widths := make([]int, len(columns))
	head := make([]string, len(columns))
	for i, c := range columns {
		head[i], widths[i] = c.Head, utf8.RuneCountInString(c.Head)
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
func fit(columns []Column, widths []int, width int) {
	total := columnGap * (len(widths) - 1)
	for _, w := range widths {
		total += w
	}
	for ; width > 0 && total > width; total-- {
		widest := -1
		for i, c := range columns {
			if c.Flexible && widths[i] > leastFlex && (widest < 0 || widths[i] > widths[widest]) {
				widest = i
			}
		}
		if widest < 0 {
			return
		}
		widths[widest]--
	}
}

func line(columns []Column, widths []int, cells []string, width int) string {
	var b strings.Builder
	for i, c := range columns {
		if i > 0 {
			b.WriteString(strings.Repeat(" ", columnGap))
		}
		cell := Cut(cells[i], widths[i])
		padding := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
		if c.Right {
			b.WriteString(padding + cell)
		} else {
			b.WriteString(cell + padding)
		}
	}
	text := strings.TrimRight(b.String(), " ")
	if width > 0 {
		text = Cut(text, width)
	}
	return text
}

// Cut shortens a text to at most width characters.
func Cut(s string, width int) string {
	if utf8.RuneCountInString(s) <= width {
		return s
	}
	if width < 1 {
		return ""
	}
	return string([]rune(s)[:width-1]) + ellipsis
}
