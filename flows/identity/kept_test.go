// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/randfill"

	"github.com/podmeter/podmeter/internal/effort"
	"github.com/podmeter/podmeter/internal/sieve"
)

// words are texts that mean something somewhere in an object.
var words = strings.Fields("a web-5d4f7c 5d4f7c backup-29000000 ReplicaSet Job Node DaemonSet 10.0.0.1 10.0.0.2 fd00::1 10.244.1.0/24 " +
	"fd00:1::/64 None ExternalName ClusterIP UDP SCTP Running Succeeded Failed Ready True containerd://abc containerd://def")

// filler fills objects at random with what has a meaning.
func filler(seed int64) *randfill.Filler {
	word := func(c randfill.Continue) string { return words[c.Intn(len(words))] }
	return randfill.NewWithSeed(seed).NilChance(0.3).NumElements(0, 3).MaxDepth(12).Funcs(
		func(s *string, c randfill.Continue) { *s = word(c) },
		func(s *corev1.PodPhase, c randfill.Continue) { *s = corev1.PodPhase(word(c)) },
		func(s *corev1.ServiceType, c randfill.Continue) { *s = corev1.ServiceType(word(c)) },
		func(s *corev1.Protocol, c randfill.Continue) { *s = corev1.Protocol(word(c)) },
		func(s *corev1.NodeConditionType, c randfill.Continue) { *s = corev1.NodeConditionType(word(c)) },
		func(s *corev1.ConditionStatus, c randfill.Continue) { *s = corev1.ConditionStatus(word(c)) },
		func(q *resource.Quantity, c randfill.Continue) {
			*q = *resource.NewQuantity(c.Int63n(1000), resource.DecimalSI)
		},
		func(at *metav1.Time, c randfill.Continue) { *at = metav1.Unix(c.Int63n(4e9), 0) },
		func(m *metav1.ObjectMeta, c randfill.Continue) {
			c.FillNoCustom(m)
			m.Labels = some(c, word, podTemplateHash, corev1.LabelTopologyZone)
			m.Annotations = some(c, word, append([]string{corev1.MirrorPodAnnotationKey, metav1.InitialEventsAnnotationKey}, tunnelAnnotations...)...)
			if m.Annotations != nil && c.Bool() {
				m.Annotations[networkStatus] = `[{"name": "n", "ips": ["10.0.0.9", "` + word(c) + `"]}]`
			}
		},
	)
}

// some returns a mapping with some of the keys and with others, or none.
func some(c randfill.Continue, word func(randfill.Continue) string, keys ...string) map[string]string {
	if c.Intn(5) == 0 {
		return nil
	}
	texts := map[string]string{"app": "web", word(c): word(c)}
	for _, key := range keys {
		if c.Bool() {
			texts[key] = word(c)
		}
	}
	return texts
}

// encodable is an object that can be decoded.
type encodable[O any] interface {
	object[O]
	sieve.Unmarshaler
	Marshal() ([]byte, error)
}

// checkKept compares what is made of objects that are decoded whole and of what is kept of
// them. It returns how large the objects are and what is kept, in bytes.
func checkKept[O, T any, P encodable[O]](t *testing.T, kept sieve.Message, convert func(P) *T) {
	var had, left int
	for seed := range int64(effort.Choose(3000, 300)) {
		o := P(new(O))
		filler(seed).Fill(o)
		message, err := o.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		whole, part := P(new(O)), P(new(O))
		if err := whole.Unmarshal(message); err != nil {
			t.Fatal(err)
		}
		passed, err := kept.Append(nil, message)
		if err != nil {
			t.Fatalf("seed %d: got %v, which is not of the expected form", seed, err)
		}
		had, left = had+len(message), left+len(passed)
		if err := kept.Unmarshal(message, part); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		rand.Shuffle(len(message), reflect.Swapper(message)) // what is decoded keeps nothing of it
		want, got := readOf(whole, convert(whole)), readOf(part, convert(part))
		if !reflect.DeepEqual(want, got) {
			t.Fatalf("seed %d: %s", seed, cmp.Diff(want, got, cmp.Exporter(func(reflect.Type) bool { return true })))
		}
	}
	if left*3 > had {
		t.Errorf("got %d of %d bytes kept, want a third at most", left, had)
	}
}

// read is all that is read of an object: by us, and by client-go.
type read[T any] struct {
	namespace, name, uid, version, isLast string
	value                                 *T
}

func readOf[T any](o metav1.Object, value *T) read[T] {
	return read[T]{o.GetNamespace(), o.GetName(), string(o.GetUID()), o.GetResourceVersion(),
		o.GetAnnotations()[metav1.InitialEventsAnnotationKey], value}
}

// Nothing that is read of an object is lost by what is left out before it is decoded.
func TestNothingReadIsLeftOut(t *testing.T) {
	t.Run("pods", func(t *testing.T) {
		checkKept(t, keptFields["Pod"], func(p *corev1.Pod) *Pod {
			pod := podOf(p)
			pod.Containers = pod.Over.containersOf(p)
			return pod
		})
	})
	t.Run("services", func(t *testing.T) { checkKept(t, keptFields["Service"], serviceOf) })
	t.Run("nodes", func(t *testing.T) { checkKept(t, keptFields["Node"], nodeOf) })
}

// BenchmarkDecodePod reports what it takes to decode a pod of 6 kB, as many are, whole and as
// far as it is read.
func BenchmarkDecodePod(b *testing.B) {
	p := running("web-5d4f7c-abcde", metav1.NewTime(start), "10.0.0.1")
	p.Labels = map[string]string{podTemplateHash: "5d4f7c", "app.kubernetes.io/name": "web"}
	for range 2 {
		p.ManagedFields = append(p.ManagedFields, metav1.ManagedFieldsEntry{Manager: "kubelet", Operation: "Update", APIVersion: "v1",
			FieldsType: "FieldsV1", FieldsV1: metav1.NewFieldsV1(strings.Repeat(`{"f:metadata":{"f:labels":{}}}`, 50))})
	}
	p.Spec.Containers = nil
	for _, name := range words[:3] {
		c := corev1.Container{Name: name, Image: "registry.example.com/web:v1", Args: []string{"--a", "--b"}}
		for _, word := range words[:8] {
			c.Env = append(c.Env, corev1.EnvVar{Name: word, Value: word})
			c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: word, MountPath: "/var/lib/" + word})
		}
		p.Spec.Containers = append(p.Spec.Containers, c)
		p.Status.ContainerStatuses = append(p.Status.ContainerStatuses, corev1.ContainerStatus{Name: name, Image: c.Image, ContainerID: "containerd://" + name})
		p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: corev1.PodReady, Status: corev1.ConditionTrue})
	}
	message, err := p.Marshal()
	if err != nil {
		b.Fatal(err)
	}
	for name, kept := range map[string]sieve.Message{"whole": nil, "read": keptFields["Pod"]} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(message)))
			for b.Loop() {
				if err := decode(new(corev1.Pod), message, kept); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
