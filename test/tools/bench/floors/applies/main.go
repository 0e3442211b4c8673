// Applies is a bare loop of what the renewer writes: server-side applies of a pull
// secret that is given, by as many workers as the renewer has. Secret number i is
// in the namespace number i/per. It starts when a line comes on stdin.
//
// With -watch, it applies the secret to each namespace that gets a label, as soon as
// it is told of it, until stdin ends. When it watches, it prints a line.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

func main() {
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "applies:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	kubeconfig := flag.String("kubeconfig", "", "`FILE`")
	agent := flag.String("user-agent", "", "by which the audit log tells its requests")
	file := flag.String("secret", "", "`FILE` with the secret to apply, JSON; its number is appended to its name")
	format := flag.String("namespaces", "", "`FORMAT` of the namespaces' names, with one number")
	per := flag.Int("per", 1, "`SECRETS` in each namespace")
	from := flag.Int("from", 0, "first number")
	to := flag.Int("to", 0, "number after the last")
	label := flag.String("watch", "", "`LABEL` of namespaces to wait for")
	workers := flag.Int("workers", 8, "`NUMBER` of applies at once")
	flag.Parse()

	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	if err != nil {
		return err
	}
	// As the renewer's.
	config.UserAgent, config.QPS = *agent, -1
	config.AcceptContentTypes, config.ContentType = "application/vnd.kubernetes.protobuf,application/json", "application/vnd.kubernetes.protobuf"
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	text, err := os.ReadFile(*file)
	if err != nil {
		return err
	}
	var secret corev1.Secret
	if err := json.Unmarshal(text, &secret); err != nil {
		return fmt.Errorf("reading %s: %w", *file, err)
	}
	apply := func(ctx context.Context, namespace, name string) error {
		secret := applycorev1.Secret(name, namespace).WithType(secret.Type).
			WithLabels(secret.Labels).WithAnnotations(secret.Annotations).WithData(secret.Data)
		_, err := client.CoreV1().Secrets(namespace).Apply(ctx, secret, metav1.ApplyOptions{FieldManager: "floor", Force: true})
		return err
	}
	if *label != "" {
		return answer(ctx, client, *label, func(namespace string) error { return apply(ctx, namespace, secret.Name) })
	}
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	for w := range *workers {
		group.Go(func() error {
			for i := *from + w; i < *to; i += *workers {
				if err := apply(ctx, fmt.Sprintf(*format, i / *per), fmt.Sprintf("%s-%d", secret.Name, i)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}

// answer applies the secret to namespaces with the label as they come.
func answer(ctx context.Context, client *kubernetes.Clientset, label string, apply func(namespace string) error) error {
	namespaces, err := client.CoreV1().Namespaces().Watch(ctx, metav1.ListOptions{LabelSelector: label})
	if err != nil {
		return err
	}
	fmt.Println(`"watching"`)
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		namespaces.Stop()
	}()
	var group errgroup.Group
	for event := range namespaces.ResultChan() {
		if namespace, ok := event.Object.(*corev1.Namespace); ok && event.Type == watch.Added {
			group.Go(func() error { return apply(namespace.Name) })
		} else if event.Type == watch.Error {
			return errors.New("the watch failed")
		}
	}
	return group.Wait()
}
