package config

import "strings"

const exampleHead = `# What ` + "`supervisor start`" + ` can be told. Lines that begin with "#" show the defaults.
#
# Each setting outside of tables is also a flag (--concurrency 4) and an environment variable (SEMAPHORE_AGENT_CONCURRENCY=4).
# Flags win over the environment, which wins over this file. Where a list stands, one text with commas will do as well.
#
# This file is generated from the table in internal/config/options.go.
`

// Example is the content of agent.toml.example: each setting with its default.
func Example() string {
	c := defaults()
	c.StateDir, _ = defaultStateDir(Sources{Root: true})
	var b strings.Builder
	b.WriteString(exampleHead)
	group, table := "", ""
	for _, o := range options {
		if o.group != group {
			group = o.group
			if group != fileGroup {
				b.WriteString("\n# ---- " + group + " ----\n")
			}
		}
		key := o.key
		if name, inner, ok := strings.Cut(o.key, "."); ok {
			key = inner
			if name != table {
				table = name
				b.WriteString("\n[" + table + "]\n")
			}
		}
		b.WriteString("\n")
		writeComment(&b, o.doc)
		switch {
		case o.in&inFile == 0:
			b.WriteString("# " + o.env() + "=" + o.def + "\n")
		case o.required:
			b.WriteString(key + " = " + o.value.show(c) + "\n")
		default:
			b.WriteString("# " + key + " = " + o.value.show(c) + "\n")
		}
		b.WriteString(o.more)
	}
	return b.String()
}

func writeComment(b *strings.Builder, text string) {
	const width = 110
	line := "#"
	for word := range strings.FieldsSeq(text) {
		if len(line)+1+len(word) > width {
			b.WriteString(line + "\n")
			line = "#"
		}
		line += " " + word
	}
	b.WriteString(line + "\n")
}
