package compose

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kballard/go-shellquote"
	"golang.org/x/sync/errgroup"

	"github.com/signalman-ci/signalman/internal/engine"
	executorsettings "github.com/signalman-ci/signalman/internal/executor/settings"
	"github.com/signalman-ci/signalman/internal/session/helper"
	"github.com/signalman-ci/signalman/shared/protocol"
)

const (
	// What is put into main: the helper's binary, and a folder in which the container's user, whoever that is, may make the
	// helper's own.
	helperPath   = "/.signalman/helper"
	helperCommon = "/.signalman/run"
	helperFolder = helperCommon + "/session"

	// shellStartLimit is how long a .bashrc may take.
	shellStartLimit = time.Minute
	// lastLines is how many lines of a dead container are shown.
	lastLines = 10
	// engineBackLimit is how long a job that has ended waits for an engine that is being restarted, to remove its containers.
	engineBackLimit = 30 * time.Second
	engineBackLook  = 500 * time.Millisecond
	// removeTries is how often it is tried with an engine that answers: its connections may break in mid-request.
	removeTries = 10
	// answerLimit is how long a job that is stopped waits for the engine's answer to what it had asked for.
	answerLimit = 30 * time.Second
	// roomLook is the time between two looks whether a main that is full of processes has room again.
	roomLook, roomLimit = 200 * time.Millisecond, 30 * time.Second
	// ownPids is what the helper and its relays may take of processes and threads, beside what main's job may.
	ownPids = 32
)

// goneError is why nothing more can be run in main, said in one line.
type goneError struct{ text string }

func (e goneError) Error() string { return e.text }

// Is makes the helper's client try no more, and the runner start nothing more.
func (goneError) Is(target error) bool {
	return target == helper.ErrGone || target == protocol.ErrEnvironmentGone
}

// service is a container beside main.
type service struct {
	protocol.Container
	id string
}

// environment is the containers of one job.
type environment struct {
	binary   func(arch string) ([]byte, error) // of the helper
	engine   *engine.Engine
	job      *protocol.Job
	settings *protocol.Settings
	options  executorsettings.Compose
	host     *hostCommands

	// network and the ids of containers are "" for what isn't made yet.
	network  string
	main     service
	services []*service
	mainDir  string
	watch    *watcher

	mu      sync.Mutex // guards client while shells come and Stop looks
	client  *helper.Client
	first   protocol.Shell // opened while preparing, for the first OpenShell
	stopped bool
}

func newEnvironment(binary func(arch string) ([]byte, error), eng *engine.Engine, job *protocol.Job, settings *protocol.Settings,
	options executorsettings.Compose) *environment {
	e := &environment{binary: binary, engine: eng, job: job, settings: settings, options: options, host: newHostCommands(job.ID, settings)}
	for i, c := range job.Compose.Containers {
		if i == 0 {
			e.main = service{Container: c}
			continue
		}
		e.services = append(e.services, &service{Container: c})
	}
	return e
}

// prepare makes everything up to an open shell.
func (e *environment) prepare(ctx context.Context, log protocol.SectionLog) error {
	if err := e.host.run(ctx, e.job.Compose.HostSetupCommands, log); err != nil {
		return err
	}
	keys, err := e.credentialsSection(ctx, log)
	if err != nil {
		return err
	}
	images, err := e.imagesSection(ctx, log, keys)
	if err != nil {
		return err
	}
	return e.startSection(ctx, log, images)
}

func (e *environment) startSection(ctx context.Context, log protocol.SectionLog, images map[string]engine.Image) (err error) {
	out, end := log.Section("Starting the docker image...")
	defer func() { end(codeOf(err)) }()
	binds, missing, err := hostFiles(e.options)
	if err != nil {
		return err
	}
	for _, path := range missing {
		fmt.Fprintf(out, "Warning: the host's file %s for containers (files) is not there.\n", path)
	}
	if e.network, err = e.makeNetwork(ctx); err != nil {
		return err
	}
	if e.watch, err = watch(ctx, e.engine, labels(e.settings.InstanceID, e.job.ID)); err != nil {
		return err
	}
	starts, starting := errgroup.WithContext(ctx) // one that doesn't start ends the wait for the others' health
	starts.Go(func() error { return e.startMain(starting, images[e.main.Image], binds) })
	for _, s := range e.services {
		starts.Go(func() error { return e.startService(starting, s, images[s.Image], binds) })
	}
	if err := starts.Wait(); err != nil {
		return err
	}
	shell, err := e.openShell(ctx)
	if err != nil {
		return err
	}
	e.first = shell
	fmt.Fprintln(out, "Starting a new bash session.")
	return nil
}

// outlasting gives a context that ends a while after ctx: for a request whose answer tells what was made.
func outlasting(ctx context.Context) (context.Context, context.CancelFunc) {
	longer, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		select {
		case <-time.After(answerLimit):
			cancel()
		case <-longer.Done():
		}
	})
	return longer, func() {
		stop()
		cancel()
	}
}

// networkName is a name for a job's network. Engines want one of its own for each network: what is left of the same job, or another
// agent's job of the same id, isn't in its way.
func networkName(job string) string {
	return "signalman-" + job + "-" + strings.ToLower(rand.Text()[:8])
}

// makeNetwork isn't cut short at once: what the engine then makes nevertheless could be left.
func (e *environment) makeNetwork(ctx context.Context) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	creating, cancel := outlasting(ctx)
	defer cancel()
	id, err := e.engine.CreateNetwork(creating, networkName(e.job.ID), labels(e.settings.InstanceID, e.job.ID))
	if err != nil {
		return "", fmt.Errorf("cannot make the job's network: %w", err)
	}
	return id, nil
}

// create makes a container with what holds for main and services.
func (e *environment) create(ctx context.Context, s *service, image engine.Image, c engine.Container) (err error) {
	if err := ctx.Err(); err != nil {
		return err
	}
	c.Image, c.User, c.Network = s.Image, s.User, e.network
	c.Volumes = slices.DeleteFunc(slices.Clone(image.Volumes), func(path string) bool { // what is bound there takes its place
		return slices.ContainsFunc(e.options.Files, func(f executorsettings.File) bool { return samePath(f.Container, path) })
	})
	c.Memory, c.MilliCPUs, c.Pids = e.settings.Limits.Memory, e.settings.Limits.MilliCPUs, cmp.Or(c.Pids, e.settings.Limits.Pids)
	c.Aliases = []string{s.Name}
	for _, v := range s.Env {
		c.Env = append(c.Env, v.Name+"="+v.Value)
	}
	c.Labels = labels(e.settings.InstanceID, e.job.ID)
	c.Labels[labelContainer] = s.Name
	if c.Entrypoint, err = shellquote.Split(s.Entrypoint); err != nil {
		return fmt.Errorf("the entrypoint of container %s cannot be split into words: %w", s.Name, err)
	}
	creating, cancel := outlasting(ctx)
	defer cancel()
	id, err := e.engine.Create(creating, c)
	if err != nil {
		return fmt.Errorf("cannot make container %s: %w", s.Name, err)
	}
	s.id = id
	return nil
}

func samePath(a, b string) bool { return path.Clean(a) == path.Clean(b) }

// startMain makes the container for the commands run the helper, by its entrypoint if it has one.
func (e *environment) startMain(ctx context.Context, image engine.Image, binds []engine.Bind) error {
	binary, err := e.binary(image.Arch)
	if err != nil {
		return fmt.Errorf("cannot run commands in image %s: %w", e.main.Image, err)
	}
	c := engine.Container{
		Command: []string{helperPath, helper.ServeMode, helperFolder}, StopSignal: "SIGTERM", Binds: binds,
	}
	if socket := socketOf(e.engine.Host()); e.options.MountDockerSocket && socket != "" {
		c.Binds = append(c.Binds[:len(c.Binds):len(c.Binds)], engine.Bind{Host: socket, Container: "/var/run/docker.sock"})
	}
	if _, err := os.Stat("/dev/kvm"); e.options.ExposeKVM && err == nil {
		c.Devices = []string{"/dev/kvm"}
	}
	if pids := e.settings.Limits.Pids; pids > 0 {
		c.Pids = pids + ownPids
	}
	if err := e.create(ctx, &e.main, image, c); err != nil {
		return err
	}
	e.mainDir = "~"
	if dir := image.WorkingDir; dir != "" && dir != "/" {
		e.mainDir = "" // the image's own
	}
	files, err := e.hookFiles()
	if err != nil {
		return err
	}
	files = append(append(files, containerFiles(&e.main, image)...),
		engine.File{Path: helperPath, Mode: 0o755, Content: binary},
		engine.File{Path: helperCommon, Mode: fs.ModeDir | fs.ModeSticky | 0o777})
	if err := e.engine.Copy(ctx, e.main.id, files...); err != nil {
		return fmt.Errorf("cannot put files into container %s: %w", e.main.Name, err)
	}
	if err := e.engine.Start(ctx, e.main.id); err != nil {
		return fmt.Errorf("cannot start container %s: %w", e.main.Name, err)
	}
	return nil
}

func (e *environment) startService(ctx context.Context, s *service, image engine.Image, binds []engine.Bind) error {
	command, err := shellquote.Split(s.Command)
	if err != nil {
		return fmt.Errorf("the command of container %s cannot be split into words: %w", s.Name, err)
	}
	if err := e.create(ctx, s, image, engine.Container{Command: command, Binds: binds}); err != nil {
		return err
	}
	if files := containerFiles(s, image); len(files) > 0 {
		if err := e.engine.Copy(ctx, s.id, files...); err != nil {
			return fmt.Errorf("cannot put files into container %s: %w", s.Name, err)
		}
	}
	e.watch.service(s)
	if err := e.engine.Start(ctx, s.id); err != nil {
		return fmt.Errorf("cannot start container %s: %w", s.Name, err)
	}
	if image.HasHealth {
		return e.watch.awaitHealth(ctx, s)
	}
	return nil
}

// containerFiles are those that the job's request has for one container.
func containerFiles(s *service, image engine.Image) []engine.File {
	var files []engine.File
	for _, f := range s.Files {
		files = append(files, engine.File{Path: inContainer(f.Path, homeOf(s, image)), Mode: f.Mode, Content: f.Content})
	}
	return files
}

// hookFiles are copies of the hooks that this host has, for the same places in main; others have to be there already.
func (e *environment) hookFiles() ([]engine.File, error) {
	var files []engine.File
	for _, hook := range []protocol.Hook{e.settings.PreHook, e.settings.PostHook} {
		bound := slices.ContainsFunc(e.options.Files, func(f executorsettings.File) bool { return isBelow(hook.Path, f.Container) })
		if !path.IsAbs(hook.Path) || bound {
			continue
		}
		content, err := os.ReadFile(hook.Path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return nil, fmt.Errorf("cannot give a hook of the agent to container %s: %w", e.main.Name, err)
		default:
			files = append(files, engine.File{Path: hook.Path, Mode: 0o755, Content: content})
		}
	}
	return files, nil
}

// isBelow tells whether a path is a folder's, or below it.
func isBelow(name, folder string) bool {
	name, folder = path.Clean(name), path.Clean(folder)
	return name == folder || strings.HasPrefix(name, strings.TrimSuffix(folder, "/")+"/")
}

// homeOf guesses the home of a container's user before the container runs.
func homeOf(s *service, image engine.Image) string {
	home := ""
	for _, v := range image.Env {
		if value, ok := strings.CutPrefix(v, "HOME="); ok {
			home = value
		}
	}
	for _, v := range s.Env {
		if v.Name == "HOME" {
			home = v.Value
		}
	}
	if home != "" {
		return home
	}
	user := s.User
	if user == "" {
		user = image.User
	}
	switch user, _, _ = strings.Cut(user, ":"); user {
	case "", "0", "root":
		return "/root"
	default:
		return "/home/" + user
	}
}

func inContainer(name, home string) string {
	if rest, ok := strings.CutPrefix(name, "~/"); ok {
		return path.Join(home, rest)
	}
	if path.IsAbs(name) {
		return name
	}
	return path.Join(home, name)
}

// dial runs the relay in main. Its error is final if main or the engine is gone.
func (e *environment) dial(ctx context.Context) (io.ReadWriteCloser, error) {
	if err := e.mainGone(ctx); err != nil {
		return nil, err
	}
	conn, err := e.engine.Exec(ctx, e.main.id, helperPath, helper.RelayMode, helperFolder)
	if err == nil || ctx.Err() != nil {
		return conn, err
	}
	if gone := e.mainGone(ctx); gone != nil {
		return nil, gone
	}
	return nil, err
}

// mainGone tells why nothing can run in main any more.
func (e *environment) mainGone(ctx context.Context) error {
	if err := e.watch.lostEngine(); err != nil {
		return err
	}
	state, err := e.engine.State(ctx, e.main.id)
	switch {
	case errors.Is(err, engine.ErrUnreachable):
		return goneError{engineLost}
	case errors.Is(err, engine.ErrNotFound):
		return goneError{fmt.Sprintf("The container %s was removed while the job ran.", e.main.Name)}
	case err != nil || state.Running:
		return nil //nolint:nilerr // that isn't known, then
	case e.watch.engineEnds(ctx): // which stops its containers
		return goneError{engineLost}
	}
	why := fmt.Sprintf("with code %d", state.ExitCode)
	switch {
	case state.OOMKilled:
		why += " after the kernel killed a process of it for want of memory"
	case state.ExitCode == 0: // the helper ends so when it is asked to
		why += ", as it was stopped from outside, or with the Docker engine"
	}
	return goneError{e.watch.withLastLines(ctx, fmt.Sprintf("The container %s, where the job's commands run, ended %s", e.main.Name, why), e.main.id)}
}

func (e *environment) OpenShell(ctx context.Context) (protocol.Shell, error) {
	if first := e.first; first != nil {
		e.first = nil
		return first, nil
	}
	return e.openShell(ctx)
}

func (e *environment) openShell(ctx context.Context) (protocol.Shell, error) {
	e.mu.Lock()
	if e.client == nil {
		e.client = helper.Attach(e.dial, helper.ClientOptions{})
	}
	client := e.client
	e.mu.Unlock()
	s, err := client.Open(ctx, helper.ShellOptions{Dir: e.mainDir, StartTimeout: shellStartLimit})
	if err != nil {
		if errors.Is(err, helper.ErrGone) {
			return nil, err
		}
		return nil, fmt.Errorf("container %s (image %s): %w", e.main.Name, e.main.Image, err)
	}
	return &shell{Shell: s, watch: e.watch, limits: e.settings.Limits}, nil
}

func (e *environment) ResolvePath(path string) string { return path }

func (e *environment) Inject(ctx context.Context, file protocol.File) error {
	if err := e.client.Put(ctx, helper.File{Path: file.Path, Mode: file.Mode, Content: file.Content}); err != nil {
		return fmt.Errorf("cannot inject %s: %w", file.Path, err)
	}
	return nil
}

// Stop ends what runs in main. The services go on: the job's last words may need them.
func (e *environment) Stop(ctx context.Context) error {
	e.mu.Lock()
	e.stopped = true
	client := e.client
	e.mu.Unlock()
	grace := e.settings.StopGrace
	err := e.host.end(ctx, grace)
	if client == nil {
		return err
	}
	endErr := client.End(ctx, grace)
	if endErr != nil && ctx.Err() == nil && !errors.Is(endErr, helper.ErrGone) {
		endErr = e.makeRoom(ctx, client)
	}
	if endErr != nil && !errors.Is(endErr, helper.ErrGone) {
		err = errors.Join(err, endErr)
	}
	return err
}

// makeRoom ends what runs in a main in which nothing more can be started, since its limit of processes or memory is reached.
func (e *environment) makeRoom(ctx context.Context, client *helper.Client) error {
	ctx, cancel := context.WithTimeout(ctx, roomLimit)
	defer cancel()
	for {
		if err := e.engine.Signal(ctx, e.main.id, helper.EndSignal); err != nil {
			return fmt.Errorf("cannot end the container's processes: %w", err)
		}
		select {
		case <-time.After(roomLook):
		case <-ctx.Done():
		}
		if err := client.End(ctx, leftoverGrace); err == nil || ctx.Err() != nil || errors.Is(err, helper.ErrGone) {
			return err
		}
	}
}

// Close stops the containers, side by side, and removes all that carries the job's label.
func (e *environment) Close(ctx context.Context) error {
	e.mu.Lock()
	grace := min(e.settings.StopGrace, leftoverGrace)
	if e.stopped {
		grace = e.settings.StopGrace
	}
	client := e.client
	e.mu.Unlock()
	if e.watch != nil {
		e.watch.close()
	}
	if client != nil {
		client.HangUp()
	}
	err := e.host.close(ctx)
	e.stopContainers(ctx, grace)
	return errors.Join(err, e.removeAll(ctx), e.engine.Close())
}

// stopContainers stops and removes the job's containers as well as can be; removeAll does it for certain.
func (e *environment) stopContainers(ctx context.Context, grace time.Duration) {
	var ids []string
	for _, s := range append([]*service{&e.main}, e.services...) {
		if s.id != "" {
			ids = append(ids, s.id)
		}
	}
	_ = inParallel(ids, func(id string) error {
		return errors.Join(e.engine.Stop(ctx, id, grace), e.engine.Remove(ctx, id))
	})
}

// removeAll removes all that carries the job's label, and waits for an engine that is being restarted. It does so on a connection of its
// own: an engine that ends takes no new ones, but answers on those that it has, and forgets what it is told there.
func (e *environment) removeAll(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, engineBackLimit)
	defer cancel()
	for tries := 1; ; tries++ {
		err := e.removeOnce(ctx)
		if err == nil || (tries >= removeTries && !errors.Is(err, engine.ErrUnreachable)) {
			return err
		}
		select {
		case <-time.After(engineBackLook):
		case <-ctx.Done():
			return err
		}
	}
}

func (e *environment) removeOnce(ctx context.Context) error {
	eng, err := engine.Connect(ctx)
	if err != nil {
		return err
	}
	defer eng.Close()
	return removeAll(ctx, eng, labels(e.settings.InstanceID, e.job.ID))
}
