package k8s

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/kballard/go-shellquote"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	executorsettings "github.com/signalman-ci/signalman/internal/executor/settings"
	"github.com/signalman-ci/signalman/internal/pullauth"
	"github.com/signalman-ci/signalman/shared/protocol"
)

const (
	ownVolume, filesVolume = "signalman", "signalman-files"
	// gate keeps a pod from the scheduler until its Secrets are there.
	gate = "signalman.dev/secrets"
)

// resources are what is made in the cluster for one job.
type resources struct {
	pod *corev1.Pod
	// env has the variables and files of the containers; pull, nil for a job without, the image pull credentials. Their owner is the pod.
	env, pull *corev1.Secret
	// warnings are for the job's log, a line each.
	warnings []string
}

// builder makes resources.
type builder struct {
	job      *protocol.Job
	settings *protocol.Settings
	options  executorsettings.Kubernetes
	template template
	keys     pullauth.Keyring

	data     map[string][]byte // of the Secret with variables and files
	files    []corev1.KeyToPath
	warnings []string
}

func (b *builder) build() (resources, error) {
	containers, err := b.containers()
	if err != nil {
		return resources{}, err
	}
	b.data = map[string][]byte{}
	name := podName(b.job.ID)
	spec := corev1.PodSpec{
		RestartPolicy:   corev1.RestartPolicyNever,
		SchedulingGates: []corev1.PodSchedulingGate{{Name: gate}},
		Volumes:         []corev1.Volume{{Name: ownVolume, VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}},
	}
	alias := corev1.HostAlias{IP: "127.0.0.1"}
	for i, c := range containers {
		made, err := b.container(i, c)
		if err != nil {
			return resources{}, err
		}
		spec.Containers = append(spec.Containers, made)
		if subdomain.MatchString(c.Name) {
			alias.Hostnames = append(alias.Hostnames, c.Name)
		}
	}
	if len(alias.Hostnames) > 0 {
		spec.HostAliases = []corev1.HostAlias{alias}
	}
	if len(b.files) > 0 {
		spec.Volumes = append(spec.Volumes, corev1.Volume{Name: filesVolume, VolumeSource: corev1.VolumeSource{
			Secret: &corev1.SecretVolumeSource{SecretName: envSecretName(name), Items: b.files},
		}})
	}
	r := resources{warnings: b.warnings}
	config, hasPull := b.keys.DockerConfig()
	if hasPull {
		spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: pullSecretName(name)}}
		r.pull = b.secret(pullSecretName(name), corev1.SecretTypeDockerConfigJson, map[string][]byte{corev1.DockerConfigJsonKey: config})
	}
	r.env = b.secret(envSecretName(name), corev1.SecretTypeOpaque, b.data)
	if spec, err = overPod(b.template.pod, spec); err != nil {
		return resources{}, err
	}
	r.pod = &corev1.Pod{ObjectMeta: b.meta(name), Spec: spec}
	r.pod.Labels = union(b.template.labels, r.pod.Labels)
	r.pod.Annotations = union(b.template.annotations, r.pod.Annotations)
	return r, nil
}

// union is of maps of which a later one wins.
func union(all ...map[string]string) map[string]string {
	out := map[string]string{}
	for _, m := range all {
		maps.Copy(out, m)
	}
	return out
}

func (b *builder) meta(name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Name:        name,
		Labels:      union(b.options.Labels, ownLabels(b.settings.InstanceID, b.job.ID)),
		Annotations: map[string]string{annotationJob: b.job.ID},
	}
}

func (b *builder) secret(name string, kind corev1.SecretType, data map[string][]byte) *corev1.Secret {
	immutable := true
	return &corev1.Secret{ObjectMeta: b.meta(name), Type: kind, Data: data, Immutable: &immutable}
}

// containers are the job's, of which the first is called main in the pod: one without a container gets that alone.
func (b *builder) containers() ([]protocol.Container, error) {
	containers := []protocol.Container{{Name: mainContainer}}
	if b.job.Compose != nil && len(b.job.Compose.Containers) > 0 {
		containers = slices.Clone(b.job.Compose.Containers)
	}
	seen := map[string]bool{mainContainer: true}
	for i, c := range containers {
		switch {
		case i == 0:
		case c.Name == "":
			return nil, fmt.Errorf("container %d of the job (image %s) has no name: it needs one, by which the others reach it", i+1, c.Image)
		case seen[c.Name]:
			return nil, fmt.Errorf("two containers of the job have the name %s (the first one is called %s in its pod): each needs one of its own", c.Name, mainContainer)
		case !dnsLabel.MatchString(c.Name):
			return nil, fmt.Errorf("a container can't have the name %s in Kubernetes: it may have letters a-z, digits and -, 63 at most", c.Name)
		}
		seen[c.Name] = true
		image, err := b.image(i, c)
		if err != nil {
			return nil, err
		}
		containers[i].Image = image
	}
	return containers, nil
}

// image is the job's, if that may be used; else what the cluster's owner has set.
func (b *builder) image(i int, c protocol.Container) (string, error) {
	if c.Image != "" {
		if allowed := b.options.AllowedImages; len(allowed) > 0 {
			for _, re := range allowed {
				if re.MatchString(c.Image) {
					return c.Image, nil
				}
			}
			return "", fmt.Errorf("the image %s may not be used here: it matches none of kubernetes-allowed-images", c.Image)
		}
		return c.Image, nil
	}
	set := b.template.sidecar.Image
	if i == 0 {
		set = b.template.main.Image
	}
	for _, image := range []string{set, b.options.DefaultImage} {
		if image != "" {
			return image, nil
		}
	}
	return "", errors.New("the job names no image, and there is none by default: set kubernetes-default-image, or give the job a container")
}

func (b *builder) container(i int, c protocol.Container) (corev1.Container, error) {
	name, base := c.Name, b.template.sidecar
	if i == 0 {
		name, base = mainContainer, b.template.main
	}
	made := corev1.Container{Name: name, Image: c.Image}
	entrypoint, err := shellquote.Split(c.Entrypoint)
	if err != nil {
		return made, fmt.Errorf("the entrypoint of container %s cannot be split into words: %w", name, err)
	}
	made.Command = entrypoint
	if i > 0 {
		if made.Args, err = shellquote.Split(c.Command); err != nil {
			return made, fmt.Errorf("the command of container %s cannot be split into words: %w", name, err)
		}
	}
	made.SecurityContext = b.user(name, c.User)
	for _, v := range lastOfEach(c.Env) {
		key := name + "." + v.Name
		b.data[key] = []byte(v.Value)
		made.Env = append(made.Env, corev1.EnvVar{Name: v.Name, ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{
			LocalObjectReference: corev1.LocalObjectReference{Name: envSecretName(podName(b.job.ID))}, Key: key,
		}}})
	}
	for n, f := range c.Files {
		b.file(&made, c, fmt.Sprintf("%s.file-%d", name, n), f)
	}
	if i == 0 {
		made.VolumeMounts = append(made.VolumeMounts, corev1.VolumeMount{Name: ownVolume, MountPath: ownFolder})
	}
	if made, err = over(base, made); err != nil {
		return made, err
	}
	if i == 0 {
		made.Command, made.Args = slices.Concat(entrypoint, []string{"bash", "-c", waitScript}), nil
		b.limits(&made)
	}
	return made, nil
}

// lastOfEach has each name once, with the value that comes last, in the order of the names.
func lastOfEach(env []protocol.EnvVar) []protocol.EnvVar {
	values := map[string]protocol.EnvVar{}
	for _, v := range env {
		values[v.Name] = v
	}
	var out []protocol.EnvVar
	for _, name := range slices.Sorted(maps.Keys(values)) {
		out = append(out, values[name])
	}
	return out
}

// user is a container's, of which Kubernetes takes the number only.
func (b *builder) user(container, user string) *corev1.SecurityContext {
	if user == "" {
		return nil
	}
	name, group, hasGroup := strings.Cut(user, ":")
	if name == "root" {
		name = "0"
	}
	id, err := strconv.ParseInt(name, 10, 32)
	if err != nil {
		b.warnings = append(b.warnings, fmt.Sprintf("the user %s of container %s is left out: Kubernetes takes numbers only.", user, container))
		return nil
	}
	context := &corev1.SecurityContext{RunAsUser: &id}
	if gid, err := strconv.ParseInt(group, 10, 32); hasGroup && err == nil {
		context.RunAsGroup = &gid
	}
	return context
}

// file puts a file of a container's into the Secret, and from there to its place.
func (b *builder) file(made *corev1.Container, c protocol.Container, key string, f protocol.File) {
	mode := int32(f.Mode.Perm())
	home := "/root"
	if c.User != "" && c.User != "0" && c.User != "root" {
		mode |= 0o444 // a Secret's files are root's
		home = "/home/" + c.User
	}
	for _, v := range c.Env {
		if v.Name == "HOME" {
			home = v.Value
		}
	}
	place := f.Path
	if rest, ok := strings.CutPrefix(place, "~/"); ok || !path.IsAbs(place) {
		place = path.Join(home, rest)
	}
	b.data[key] = f.Content
	b.files = append(b.files, corev1.KeyToPath{Key: key, Path: key, Mode: &mode})
	made.VolumeMounts = append(made.VolumeMounts, corev1.VolumeMount{Name: filesVolume, MountPath: path.Clean(place), SubPath: key, ReadOnly: true})
}

// limits are main's, unless the ConfigMap has others.
func (b *builder) limits(main *corev1.Container) {
	set := func(name corev1.ResourceName, amount *resource.Quantity) {
		if _, there := main.Resources.Limits[name]; there || amount.IsZero() {
			return
		}
		if main.Resources.Limits == nil {
			main.Resources.Limits = corev1.ResourceList{}
		}
		main.Resources.Limits[name] = *amount
	}
	set(corev1.ResourceMemory, resource.NewQuantity(b.settings.Limits.Memory, resource.BinarySI))
	set(corev1.ResourceCPU, resource.NewMilliQuantity(b.settings.Limits.MilliCPUs, resource.DecimalSI))
	if b.settings.Limits.Pids > 0 {
		b.warnings = append(b.warnings, "[limits] pids has no effect in a pod, which has the limit of its node's kubelet (podPidsLimit).")
	}
}
