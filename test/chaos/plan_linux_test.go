package chaos

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/signalman-ci/signalman/internal/hub"
)

// section is a part of a job's log: what stands between cmd_started and cmd_finished.
type section struct {
	directive string
	output    string
	code      int
}

// plan is a job whose log and result are known beforehand.
type plan struct {
	id       string
	payload  []byte
	sections func(home string) []section // all of them, if nothing comes between
	result   hub.Result
	// containers says that it runs in containers.
	containers bool
	// stop says that the hub stops the job: while it is queued, or stopAfter its first sync.
	stop, stopQueued bool
	stopAfter        time.Duration
}

// command is a command with what it does.
type command struct {
	alias, directive string
	raw              string // what it prints, as bytes
	code             int
	endsShell        bool
}

// file is a file that a job brings.
type file struct {
	path, content, mode string
}

// planner makes jobs. Everything it draws comes from rng.
type planner struct {
	rng   *rand.Rand
	mark  string // an argument of each process that is left running
	dir   string // a folder for injected files with an absolute path
	flood int    // lines of the largest flood
	image string // for jobs in containers; "": there are none
	job   int
	step  int
}

func (p *planner) plan(job int, id string) plan {
	p.job, p.step = job, 0
	containers := p.rng.IntN(containerShare) == 0 && p.image != ""
	env, files := p.environment(), p.files(id)
	var commands []command
	for range 1 + p.rng.IntN(5) {
		commands = append(commands, p.commands(env, files)...)
	}
	env[secretName] = "t0ken of " + id
	commands = append(commands, command{directive: `echo "a $` + secretName + ` and ${` + secretName + `}$` + secretName + `"`, raw: "a *** and ***\n"})
	last, value := p.ending()
	commands = append(commands, last...)
	always, onPass, onFail := p.epilogue(), p.epilogue(), p.epilogue()

	out := plan{id: id, result: hub.ResultPassed, containers: containers}
	if p.rng.IntN(6) == 0 {
		out.stop, out.stopQueued = true, p.rng.IntN(4) == 0
	}
	out.stopAfter = time.Duration(p.rng.IntN(1500)) * time.Millisecond
	list := expectList(commands)
	var checked *section
	switch code := list[len(list)-1].code; code {
	case 0:
	case 130:
		checked = &section{directive: "Checking job result", output: "SEMAPHORE_JOB_RESULT=" + value + "\n"}
		if commands[len(commands)-1].endsShell {
			value = ""
			checked.output = "Warning: the command ended its shell, and SEMAPHORE_JOB_RESULT with it; use return 130 to keep it.\n"
		}
		if out.result = hub.Result(value); !out.result.Valid() {
			out.result = hub.ResultStopped
		}
	default:
		out.result = hub.ResultFailed
	}
	out.sections = func(home string) []section {
		var all []section
		if containers {
			home = "" // paths are shown as they are given
			all = append(all, section{directive: "Pulling docker images...", output: p.image + " is on this host\n"},
				section{directive: "Starting the docker image...", output: "Starting a new bash session.\n"})
		}
		all = append(all, exporting(slices.Sorted(maps.Keys(env))...), injecting(files, home))
		all = append(all, list...)
		if checked != nil {
			all = append(all, *checked)
		}
		if out.result == hub.ResultStopped {
			return all
		}
		all = append(all, exporting("SEMAPHORE_JOB_RESULT"))
		all = append(all, expectList(always)...)
		if out.result == hub.ResultPassed {
			return append(all, expectList(onPass)...)
		}
		return append(all, expectList(onFail)...)
	}
	image := ""
	if containers {
		image = p.image
	}
	out.payload = payload(id, image, env, files, commands, always, onPass, onFail)
	return out
}

// containerShare is of how many jobs one runs in containers.
const containerShare = 6

// secretName is a variable of each job whose value must not get into the log.
const secretName = "CHAOS_TOKEN"

// expectList are the sections of a list of commands, which ends with the first one that fails.
func expectList(commands []command) []section {
	var out []section
	lost := false
	for _, c := range commands {
		s := section{directive: c.directive, code: c.code}
		if c.alias != "" {
			s.directive, s.output = c.alias, "Running: "+c.directive+"\n"
		}
		if lost {
			s.output += "Warning: the command before ended its shell; this one runs in a new one, without the folder and variables it had set.\n"
		}
		s.output += text(c.raw)
		out = append(out, s)
		lost = c.endsShell
		if c.code != 0 {
			break
		}
	}
	return out
}

func exporting(names ...string) section {
	s := section{directive: "Exporting environment variables"}
	for _, name := range names {
		s.output += "Exporting " + name + "\n"
	}
	return s
}

func injecting(files []file, home string) section {
	s := section{directive: "Injecting Files"}
	for _, f := range files {
		path := f.path
		switch {
		case home == "":
		case strings.HasPrefix(path, "~/"):
			path = home + path[1:]
		case !filepath.IsAbs(path):
			path = filepath.Join(home, path)
		}
		s.output += fmt.Sprintf("Injecting %s with file mode %s\n", path, f.mode)
	}
	return s
}

// text is what a log says of bytes that a command prints.
func text(raw string) string {
	raw = strings.ReplaceAll(raw, "\r\n", "\n")
	var out strings.Builder
	for _, r := range raw { // each byte that isn't UTF-8 comes as U+FFFD
		out.WriteRune(r)
	}
	return out.String()
}

func payload(id, image string, env map[string]string, files []file, commands, always, onPass, onFail []command) []byte {
	type object = map[string]any
	b64 := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	list := func(commands []command) []object {
		out := []object{}
		for _, c := range commands {
			out = append(out, object{"directive": c.directive, "alias": c.alias})
		}
		return out
	}
	vars := []object{}
	for _, name := range slices.Sorted(maps.Keys(env)) {
		vars = append(vars, object{"name": name, "value": b64(env[name])})
	}
	brought := []object{}
	for _, f := range files {
		brought = append(brought, object{"path": f.path, "content": b64(f.content), "mode": f.mode})
	}
	job := object{
		"job_id": id, "env_vars": vars, "files": brought, "commands": list(commands),
		"epilogue_always_commands": list(always), "epilogue_on_pass_commands": list(onPass), "epilogue_on_fail_commands": list(onFail),
	}
	if image != "" {
		job["executor"] = "dockercompose"
		job["compose"] = object{"containers": []object{
			{"name": "main", "image": image}, {"name": "db", "image": image, "command": "sleep 10000"},
		}}
	}
	raw, err := json.Marshal(job)
	if err != nil {
		panic(err)
	}
	return raw
}

// tag names the step in whatever it prints, so that a line from elsewhere shows.
func (p *planner) tag() string {
	p.step++
	return fmt.Sprintf("job-%d-step-%d", p.job, p.step)
}

func (p *planner) environment() map[string]string {
	env := map[string]string{}
	for i := range p.rng.IntN(4) {
		env[fmt.Sprintf("CHAOS_%c", 'A'+i)] = p.words("plain", "two words", "a 'quote'", `a "double" one`, "$HOME `id`", "ünïcödé €", "line\nline", "")
	}
	return env
}

func (p *planner) words(from ...string) string { return from[p.rng.IntN(len(from))] }

func (p *planner) files(id string) []file {
	var files []file
	for i := range p.rng.IntN(4) {
		f := file{mode: p.words("0600", "0400", "0644", "0755"), content: p.bytes(20 + p.rng.IntN(2000))}
		f.path = []string{
			fmt.Sprintf("~/chaos-%d", i), fmt.Sprintf("~/deep/er/chaos-%d", i), fmt.Sprintf("chaos-%d.txt", i),
			filepath.Join(p.dir, id, fmt.Sprint(i)),
		}[p.rng.IntN(4)]
		if !slices.ContainsFunc(files, func(other file) bool { return other.path == f.path }) {
			files = append(files, f)
		}
	}
	return files
}

// bytes are random ones, UTF-8 and not; without CR and LF, which are told apart, and NUL, which no shell can hold.
func (p *planner) bytes(n int) string {
	var out strings.Builder
	for out.Len() < n {
		switch p.rng.IntN(4) {
		case 0:
			if b := byte(p.rng.IntN(256)); b != 0 && b != '\r' && b != '\n' {
				out.WriteByte(b)
			}
		case 1:
			if r := rune(p.rng.IntN(0x2ffff)); r >= 0x80 && utf8.ValidRune(r) {
				out.WriteRune(r)
			}
		default:
			out.WriteByte(byte('a' + p.rng.IntN(26)))
		}
	}
	return out.String()
}

// octal prints any bytes by a command that is plain text.
func octal(raw string) string {
	var out strings.Builder
	for _, b := range []byte(raw) {
		if b >= 'a' && b <= 'z' {
			out.WriteByte(b)
		} else {
			fmt.Fprintf(&out, `\0%03o`, b)
		}
	}
	return "printf %b '" + out.String() + "'"
}

// commands draws a step of a job.
func (p *planner) commands(env map[string]string, files []file) []command {
	tag := p.tag()
	switch p.rng.IntN(15) {
	case 0:
		return []command{{directive: "echo " + tag, raw: tag + "\n"}}
	case 1: // many short lines
		n := 50 + p.rng.IntN(1000)
		return []command{{
			directive: fmt.Sprintf("for i in $(seq 1 %d); do echo %s line $i; done", n, tag),
			raw:       lines(n, tag+" line %d\n"),
		}}
	case 2: // a flood
		n := p.flood/4 + p.rng.IntN(p.flood)
		return []command{{directive: fmt.Sprintf("printf '%s flood %%d\\n' {1..%d}", tag, n), raw: lines(n, tag+" flood %d\n")}}
	case 3, 4, 5: // a trickle
		n := 5 + p.rng.IntN(40)
		return []command{{
			alias:     tag + " trickles",
			directive: fmt.Sprintf("for i in $(seq 1 %d); do echo %s drop $i; sleep 0.05; done", n, tag),
			raw:       lines(n, tag+" drop %d\n"),
		}}
	case 6: // a wait for another process
		pause := fmt.Sprintf("%.1f", float64(p.rng.IntN(20))/10)
		return []command{{
			directive: fmt.Sprintf(`mkfifo "${TMPDIR:-/tmp}/%[1]s"; (sleep %[2]s; echo go >"${TMPDIR:-/tmp}/%[1]s") & read -r word <"${TMPDIR:-/tmp}/%[1]s"; echo %[1]s $word; wait`, tag, pause),
			raw:       tag + " go\n",
		}}
	case 7: // any bytes, with CRLF and a character that is cut at the end
		raw := p.bytes(30+p.rng.IntN(300)) + "\r\n" + p.bytes(50) + "\r\nprogress\rprogress 2\n" + p.words("", "\xe2\x82", "\xf0", "\r")
		return []command{{directive: octal(raw), raw: raw}}
	case 8: // a line without an end
		n := 1 + p.rng.IntN(200_000)
		return []command{{
			directive: fmt.Sprintf("head -c %d /dev/zero | tr '\\0' x", n), raw: strings.Repeat("x", n),
		}}
	case 9: // the shell's state lasts
		return []command{
			{directive: "cd /etc; export CHAOS_STATE=" + tag + "; f() { echo function $1; }"},
			{directive: `echo "$PWD $CHAOS_STATE"; f ` + tag + "; cd", raw: "/etc " + tag + "\nfunction " + tag + "\n"},
		}
	case 10: // what the job brings
		var c command
		for _, name := range slices.Sorted(maps.Keys(env)) {
			c.directive += fmt.Sprintf("printf '%%s\\n' \"$%s\"; ", name)
			c.raw += env[name] + "\n"
		}
		for _, f := range files {
			c.directive += "cat " + f.path + "; echo; "
			c.raw += f.content + "\n"
		}
		c.directive += "cd; pwd >/dev/null"
		return []command{{directive: "cd"}, c}
	case 11: // rubbish in the temporary folder
		return []command{{
			directive: fmt.Sprintf("f=$(mktemp); d=${TMPDIR:-/tmp}; mkdir -p \"$d/a/b\"; echo %s | tee \"$f\" \"$d/a/b/c\" | cat; chmod 0 \"$f\"", tag),
			raw:       tag + "\n",
		}}
	case 12: // both outputs
		return []command{{directive: fmt.Sprintf("echo %[1]s out; echo %[1]s err >&2", tag), raw: tag + " out\n" + tag + " err\n"}}
	case 13:
		return []command{{directive: p.daemons() + "disown -a; echo " + tag + " started", raw: tag + " started\n"}}
	default: // a shell that goes away without a failure
		if p.rng.IntN(3) > 0 {
			return []command{{directive: "echo " + tag, raw: tag + "\n"}}
		}
		return []command{{directive: "echo " + tag + "; exit 0", raw: tag + "\n", endsShell: true}}
	}
}

// daemons starts processes that are hard to end.
func (p *planner) daemons() string {
	const stubborn = `trap "" HUP INT TERM; while :; do sleep 0.2; done`
	kinds := []string{
		"setsid bash -c '" + stubborn + "' " + p.mark + " </dev/null >/dev/null 2>&1 &\n",
		"(exec -a " + p.mark + " sleep 10000) >/dev/null 2>&1 &\n",
		"nohup bash -c '" + stubborn + "' " + p.mark + " >/dev/null 2>&1 &\n",
		"( (setsid bash -c '" + stubborn + "' " + p.mark + " </dev/null >/dev/null 2>&1 &) & )\n",
		"(trap '' HUP INT TERM; exec -a " + p.mark + " sleep 10000) 5>&1 >/dev/null 2>&1 &\n", // holds the terminal
		"bash -c 'kill -STOP $$; sleep 10000' " + p.mark + " >/dev/null 2>&1 &\n",
	}
	var out strings.Builder
	for _, i := range p.rng.Perm(len(kinds))[:1+p.rng.IntN(len(kinds))] {
		out.WriteString(kinds[i])
	}
	return out.String()
}

// ending draws how the commands end; value is what SEMAPHORE_JOB_RESULT is set to.
func (p *planner) ending() (last []command, value string) {
	tag := p.tag()
	never := command{directive: "echo never"}
	switch p.rng.IntN(12) {
	case 0, 1:
		code := []int{1, 2, 7, 127, 129, 255}[p.rng.IntN(6)]
		return []command{{directive: fmt.Sprintf("echo %s; (exit %d)", tag, code), raw: tag + "\n", code: code}, never}, ""
	case 2:
		return []command{{directive: "echo " + tag + "; exit 3", raw: tag + "\n", code: 3, endsShell: true}}, ""
	case 3:
		return []command{{directive: "kill -9 $$", code: 137, endsShell: true}}, ""
	case 4:
		value = p.words("passed", "failed", "stopped", "nonsense", "")
		return []command{{directive: "export SEMAPHORE_JOB_RESULT=" + value + "; return 130", code: 130}}, value
	case 5:
		return []command{{directive: "exit 130", code: 130, endsShell: true}}, ""
	default:
		return nil, ""
	}
}

func (p *planner) epilogue() []command {
	var out []command
	for range p.rng.IntN(3) {
		tag := p.tag()
		switch p.rng.IntN(4) {
		case 0:
			out = append(out, command{directive: "echo " + tag + "; false", raw: tag + "\n", code: 1})
		case 1:
			out = append(out, command{alias: tag + " at the end", directive: "printf '" + tag + " %d\\n' {1..500}", raw: lines(500, tag+" %d\n")})
		default:
			out = append(out, command{directive: "echo " + tag, raw: tag + "\n"})
		}
	}
	return out
}

func lines(n int, format string) string {
	var out strings.Builder
	for i := 1; i <= n; i++ {
		fmt.Fprintf(&out, format, i)
	}
	return out.String()
}

func (s section) String() string {
	return fmt.Sprintf("%q (exit code %d): %q", s.directive, s.code, s.output)
}
