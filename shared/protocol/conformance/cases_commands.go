package conformance

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/signalman-ci/signalman/shared/protocol"
)

func failingCommand(ctx context.Context, b *bench) error {
	job := b.job("echo first", "echo broken; (exit 42)", "echo never")
	job.EpilogueAlways = directives("echo always $SEMAPHORE_JOB_RESULT")
	job.EpilogueOnPass = directives("echo pass")
	job.EpilogueOnFail = directives("echo fail $SEMAPHORE_JOB_RESULT; false", "echo after a failed epilogue")
	r, err := b.run(ctx, job)
	if err != nil {
		return err
	}
	return errors.Join(
		r.wants(protocol.Failed, "echo first", "echo broken; (exit 42)", exportDirective,
			"echo always $SEMAPHORE_JOB_RESULT", "echo fail $SEMAPHORE_JOB_RESULT; false"),
		r.printed("echo first", "first\n", 0),
		r.printed("echo broken; (exit 42)", "broken\n", 42),
		r.printed(exportDirective, "Exporting SEMAPHORE_JOB_RESULT\n", 0),
		r.printed("echo always $SEMAPHORE_JOB_RESULT", "always failed\n", 0),
		r.printed("echo fail $SEMAPHORE_JOB_RESULT; false", "fail failed\n", 1),
	)
}

func exitInCommand(ctx context.Context, b *bench) error {
	job := b.job("exit 3", "echo never")
	job.Env = []protocol.EnvVar{{Name: "KEPT", Value: "kept"}}
	job.EpilogueAlways = directives("echo $KEPT $SEMAPHORE_JOB_RESULT")
	r, err := b.run(ctx, job)
	if err != nil {
		return err
	}
	return errors.Join(
		r.wants(protocol.Failed, "exit 3", exportDirective, "echo $KEPT $SEMAPHORE_JOB_RESULT"),
		r.exited("exit 3", 3),
		r.printed("echo $KEPT $SEMAPHORE_JOB_RESULT", "kept failed\n", 0),
	)
}

func alias(ctx context.Context, b *bench) error {
	job := b.job()
	job.Commands = []protocol.Command{{Directive: "echo hidden", Alias: "A fine name"}}
	job.EpilogueAlways = []protocol.Command{{Directive: "echo last", Alias: "The last one"}}
	r, err := b.run(ctx, job)
	if err != nil {
		return err
	}
	return errors.Join(
		r.wants(protocol.Passed, "A fine name", exportDirective, "The last one"),
		r.printed("A fine name", "Running: echo hidden\nhidden\n", 0),
		r.printed("The last one", "Running: echo last\nlast\n", 0),
	)
}

func environment(ctx context.Context, b *bench) error {
	values := map[string]string{
		"B_QUOTES":  `'single' "double" \back\ $HOME $(id) ` + "`id`",
		"A_LINES":   "one\ntwo\n\n",
		"C_BLANKS":  "  two \t tab ",
		"D_EMPTY":   "",
		"E_UTF8":    "żółw → 🚦",
		"F_BINARY":  "\x01\xff\xfe\x80\x1b[0m",
		"G_EQUALS":  "a=b=c",
		"H_COMMENT": "#!x; exit 9 & !!",
	}
	job := b.job()
	job.Env = []protocol.EnvVar{{Name: "G_EQUALS", Value: "an earlier value"}}
	for name, value := range values {
		job.Env = append(job.Env, protocol.EnvVar{Name: name, Value: value})
		job.Commands = append(job.Commands, protocol.Command{
			Alias: name, Directive: `sh -c 'printf %s "$` + name + `"' | od -An -v -tx1`, // a child sees it only if it is exported
		})
	}
	r, err := b.run(ctx, job)
	if err != nil {
		return err
	}
	errs := []error{}
	if r.result != protocol.Passed {
		errs = append(errs, fmt.Errorf("the job's result is %q, not passed", r.result))
	}
	if shown, want := r.body()[0].output, "A_LINES,B_QUOTES,C_BLANKS,D_EMPTY,E_UTF8,F_BINARY,G_EQUALS,H_COMMENT"; names(shown) != want {
		errs = append(errs, fmt.Errorf("the section %q shows %q; there must be \"Exporting NAME\" for %s", exportDirective, shown, want))
	}
	for name, value := range values {
		errs = append(errs, dumped(r, name, value))
	}
	return errors.Join(errs...)
}

// names are those that a section of exports shows.
func names(output string) string {
	return strings.TrimPrefix(strings.ReplaceAll(strings.TrimSuffix(output, "\n"), "\nExporting ", ","), "Exporting ")
}

// dumped compares what od has shown in a command's output.
func dumped(r *record, alias, want string) error {
	_, dump, _ := strings.Cut(r.last(alias).output, "\n") // the first line tells what runs
	if got := strings.Join(strings.Fields(dump), ""); got != hex.EncodeToString([]byte(want)) {
		return fmt.Errorf("%s: the bytes %s arrived as %q", alias, hex.EncodeToString([]byte(want)), got)
	}
	return nil
}

func files(ctx context.Context, b *bench) error {
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	absolute := filepath.Join(b.temp(), "absolute", "it's one.txt")
	job := b.job()
	job.Files = []protocol.File{
		{Path: "relative/all bytes", Content: all, Mode: 0o600},
		{Path: "~/.in-home", Content: []byte("no newline"), Mode: 0o755},
		{Path: absolute, Content: []byte("one\r\ntwo\n"), Mode: 0o440},
		{Path: "empty", Mode: 0o644},
	}
	places := []struct{ path, mode, listed string }{
		{`"$HOME/relative/all bytes"`, "0600", "-rw-------"},
		{`~/.in-home`, "0755", "-rwxr-xr-x"},
		{protocol.ShellQuote(absolute), "0440", "-r--r-----"},
		{`./empty`, "0644", "-rw-r--r--"},
	}
	for i, p := range places {
		job.Commands = append(job.Commands,
			protocol.Command{Alias: fmt.Sprintf("content %d", i), Directive: "od -An -v -tx1 " + p.path},
			protocol.Command{Alias: fmt.Sprintf("mode %d", i), Directive: "ls -l " + p.path + " | cut -c 1-10"})
	}
	r, err := b.run(ctx, job)
	if err != nil {
		return err
	}
	var errs []error
	shown := strings.Split(strings.TrimSuffix(r.last(filesDirective).output, "\n"), "\n")
	if r.result != protocol.Passed || len(shown) != len(places) {
		errs = append(errs, fmt.Errorf("the job's result is %q, its section %q shows %q", r.result, filesDirective, shown))
	}
	for i, p := range places {
		if i < len(shown) && (!strings.HasPrefix(shown[i], "Injecting ") || !strings.HasSuffix(shown[i], " with file mode "+p.mode)) {
			errs = append(errs, fmt.Errorf("for %s there must be the line \"Injecting PATH with file mode %s\", not %q", p.path, p.mode, shown[i]))
		}
		errs = append(errs, dumped(r, fmt.Sprintf("content %d", i), string(job.Files[i].Content)))
		if mode := fmt.Sprintf("mode %d", i); !strings.HasSuffix(r.last(mode).output, "\n"+p.listed+"\n") {
			errs = append(errs, fmt.Errorf("the mode of %s is %q, not %s", p.path, r.last(mode).output, p.listed))
		}
	}
	return errors.Join(errs...)
}

func shellState(ctx context.Context, b *bench) error {
	const set = "mkdir -p deep/er\ncd deep/er\nexport EXPORTED=e\nPLAIN=p\nf() { echo \"f $1\"; }\nset -f"
	const show = `echo "$EXPORTED $PLAIN" *; basename "$PWD"; f x`
	r, err := b.run(ctx, b.job(set, show))
	if err != nil {
		return err
	}
	return errors.Join(
		r.wants(protocol.Passed, set, show, exportDirective),
		r.printed(set, "", 0),
		r.printed(show, "e p *\ner\nf x\n", 0),
	)
}

func terminal(ctx context.Context, b *bench) error {
	r, err := b.run(ctx, b.job("[ -t 1 ]", "cat", "read answer || echo no answer"))
	if err != nil {
		return err
	}
	return errors.Join(
		r.wants(protocol.Passed, "[ -t 1 ]", "cat", "read answer || echo no answer", exportDirective),
		r.printed("cat", "", 0),
		r.printed("read answer || echo no answer", "no answer\n", 0),
	)
}

func signals(ctx context.Context, b *bench) error {
	const pipe = "yes | head -n 1"
	const hangup = "{ sh -c 'kill -HUP $$; echo alive'; echo $?; } 2>/dev/null" // without the words that a shell has for a death
	r, err := b.run(ctx, b.job(pipe, hangup))
	if err != nil {
		return err
	}
	return errors.Join(
		r.wants(protocol.Passed, pipe, hangup, exportDirective),
		r.printed(pipe, "y\n", 0),
		r.printed(hangup, "129\n", 0),
	)
}

func output(ctx context.Context, b *bench) error {
	job := b.job()
	job.Commands = []protocol.Command{
		{Alias: "line ends", Directive: `printf 'a\r\nb\n50%%\r100%%\n\n'`},
		{Alias: "no line end", Directive: `printf 'open'`},
		{Alias: "cut sequences", Directive: `printf '\303'; printf '\251 \360\237'; printf '\232\246\n'`},
		{Alias: "binary", Directive: `printf '\000\377x\303(\200\n'`},
		{Alias: "open sequence", Directive: `printf 'end\342\202'`},
		{Alias: "after it", Directive: `printf '\254\n'`},
	}
	r, err := b.run(ctx, job)
	if err != nil {
		return err
	}
	errs := []error{}
	for i, want := range []string{
		"a\nb\n50%\r100%\n\n", "open", "é 🚦\n", "\x00\uFFFDx\uFFFD(\uFFFD\n", "end\uFFFD", "\uFFFD\n",
	} {
		c := job.Commands[i]
		text := "Running: " + c.Directive + "\n" + want
		if c.Alias == "open sequence" && r.last(c.Alias).output == text+"\uFFFD" {
			text += "\uFFFD" // one for each byte is right too
		}
		errs = append(errs, r.printed(c.Alias, text, 0))
	}
	return errors.Join(errs...)
}

func background(ctx context.Context, b *bench) error {
	mark := "background-" + id()
	command := "sh -c 'sleep 600; :' " + mark + " &\necho started"
	r, err := b.run(ctx, b.job(command, "echo next"))
	if err != nil {
		return err
	}
	return errors.Join(
		r.exited(command, 0),
		r.printed("echo next", "next\n", 0),
		r.wants(protocol.Passed, command, "echo next", exportDirective),
		gone(mark),
	)
}

func secrets(ctx context.Context, b *bench) error {
	token, key := "the-token-"+id(), []string{"first-line-" + id(), "second-line-" + id()}
	content := "file-line-one-" + id()
	job := b.job(
		`echo "a $TOKEN, $OPEN"`,
		`printf 'b %s' "${TOKEN:0:9}"; sleep 0.1; printf '%s.\n' "${TOKEN:9}"`,
		`printf 'c %s\n' "${TOKEN:0:9}"`,
		`echo "$KEY" | sort -r`,
		"cat secret.txt",
		": d "+token,
	)
	job.Env = []protocol.EnvVar{
		{Name: "TOKEN", Value: token, Secret: true}, {Name: "KEY", Value: strings.Join(key, "\n"), Secret: true}, {Name: "OPEN", Value: "an open value"},
	}
	job.Files = []protocol.File{{Path: "secret.txt", Content: []byte(content + "\n"), Mode: 0o600, Secret: true}}
	job.EpilogueAlways = []protocol.Command{{Directive: ": " + token, Alias: "e " + token}}
	commands := job.Commands
	r, err := b.run(ctx, job)
	if err != nil {
		return err
	}
	errs := []error{
		r.wants(protocol.Passed, commands[0].Directive, commands[1].Directive, commands[2].Directive, commands[3].Directive,
			commands[4].Directive, ": d ***", exportDirective, "e ***"),
		r.printed(commands[0].Directive, "a ***, an open value\n", 0),
		r.printed(commands[1].Directive, "b ***.\n", 0),
		r.printed(commands[2].Directive, "c the-token\n", 0), // that is not all of it
		r.printed(commands[3].Directive, "***\n***\n", 0),
		r.printed(commands[4].Directive, "***\n", 0),
		r.printed("e ***", "Running: : ***\n", 0),
	}
	log, err := os.ReadFile(b.logPath(job))
	if err != nil {
		return err
	}
	for _, secret := range append(key, token, content) {
		if strings.Contains(string(log), secret) {
			errs = append(errs, fmt.Errorf("the event log holds the secret %q", secret))
		}
	}
	return errors.Join(errs...)
}
