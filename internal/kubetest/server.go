// SPDX-License-Identifier: Apache-2.0

package kubetest

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// readyTimeout is how long etcd and the API server may take to answer. Alone
// they take some seconds.
const readyTimeout = 2 * time.Minute

// Options configure a [Server].
type Options struct {
	// Commands is the folder of kube-apiserver.
	Commands string
	// Etcd is etcd's command, the one in PATH if empty.
	Etcd string
	// Folder is where everything is written. It must exist.
	Folder string
}

// Server is an API server and its etcd.
type Server struct {
	// Address is where the API server listens, host:port. It stays the same
	// when the API server is started again.
	Address string
	// Kubeconfig is the file of an account that may do everything.
	Kubeconfig string

	options     Options
	etcdAddress string
	etcd, api   *Process
}

// New starts etcd and the API server, and returns when that is ready. The caller
// closes the server.
func New(ctx context.Context, options Options) (s *Server, err error) {
	s = &Server{options: options}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	ports, err := freePorts(3)
	if err != nil {
		return nil, fmt.Errorf("find free ports: %w", err)
	}
	s.Address, s.etcdAddress = ports[0], ports[1]
	if err := s.writeFiles(); err != nil {
		return nil, fmt.Errorf("prepare API server: %w", err)
	}
	s.etcd, err = StartProcess(s.path("etcd.log"), cmp.Or(options.Etcd, "etcd"),
		"--data-dir", s.path("etcd"), "--unsafe-no-fsync", "--log-level", "warn",
		"--listen-client-urls", "http://"+s.etcdAddress, "--advertise-client-urls", "http://"+s.etcdAddress,
		"--listen-peer-urls", "http://"+ports[2], "--initial-advertise-peer-urls", "http://"+ports[2],
		"--initial-cluster", "default=http://"+ports[2], "--quota-backend-bytes", "4294967296")
	if err != nil {
		return nil, err
	}
	if err := s.etcd.Await(ctx, readyTimeout, s.etcdAnswers); err != nil {
		return nil, err
	}
	return s, s.StartAPI(ctx)
}

// StartAPI starts the API server, after [Server.StopAPI], and returns when it is
// ready.
func (s *Server) StartAPI(ctx context.Context) (err error) {
	s.api, err = StartProcess(s.path("kube-apiserver.log"), filepath.Join(s.options.Commands, "kube-apiserver"),
		"--etcd-servers", "http://"+s.etcdAddress, "--cert-dir", s.path("certificates"),
		"--bind-address", host(s.Address), "--advertise-address", host(s.Address), "--secure-port", port(s.Address),
		"--token-auth-file", s.path("tokens.csv"), "--service-cluster-ip-range", "10.96.0.0/16",
		"--service-account-issuer", "https://kubernetes.default.svc",
		"--service-account-key-file", s.path("accounts.key"), "--service-account-signing-key-file", s.path("accounts.key"),
		// There is no pod to reach it by its Service, and nobody makes the
		// accounts of namespaces.
		"--endpoint-reconciler-type", "none", "--disable-admission-plugins", "ServiceAccount")
	if err != nil {
		return err
	}
	return s.api.Await(ctx, readyTimeout, s.apiAnswers)
}

// StopAPI ends the API server at once. Asked politely it takes up to 20 s.
func (s *Server) StopAPI() { s.api.Kill() }

// Close ends both.
func (s *Server) Close() {
	s.api.Kill()
	s.etcd.Kill()
}

// Client returns a client that may do everything, as fast as it wants.
func (s *Server) Client() (kubernetes.Interface, error) {
	config, err := clientcmd.BuildConfigFromFlags("", s.Kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("configure client: %w", err)
	}
	config.QPS = -1
	config.WarningHandler = rest.NoWarnings{}
	config.ContentType = "application/vnd.kubernetes.protobuf"
	return kubernetes.NewForConfig(config)
}

func (s *Server) etcdAnswers(ctx context.Context) error {
	return Answers(ctx, "http://"+s.etcdAddress+"/health")
}

// Answers returns an error if there is no answer 200 at an address.
func Answers(ctx context.Context, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, response.Status)
	}
	return nil
}

func (s *Server) apiAnswers(ctx context.Context) error {
	client, err := s.Client()
	if err != nil {
		return err
	}
	defer client.CoreV1().RESTClient().(*rest.RESTClient).Client.CloseIdleConnections()
	_, err = client.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(ctx)
	return err
}

func (s *Server) path(name string) string { return filepath.Join(s.options.Folder, name) }

// freePorts returns addresses of the loopback interface that nobody listens on.
func freePorts(n int) (addresses []string, err error) {
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close() // all at the end, so that no two are the same
		addresses = append(addresses, l.Addr().String())
	}
	return addresses, nil
}

func host(address string) string {
	host, _, _ := net.SplitHostPort(address)
	return host
}

func port(address string) string {
	_, port, _ := net.SplitHostPort(address)
	return port
}
