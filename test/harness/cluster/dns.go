package cluster

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pullpass/pullpass/test/harness/sandbox"
)

// clusterDomain ends the names of Services.
const clusterDomain = "cluster.local."

// serveDNS answers the pods' questions for the addresses of Services, until the
// socket is closed. Other names do not exist.
func (c *Cluster) serveDNS() (net.PacketConn, error) {
	socket, err := net.ListenPacket("udp4", sandbox.NodeAddress+":53")
	if err != nil {
		return nil, fmt.Errorf("serving DNS: %w", err)
	}
	go func() {
		buffer := make([]byte, 512)
		for {
			n, from, err := socket.ReadFrom(buffer)
			if err != nil {
				return // closed
			}
			if answer, err := c.answerDNS(buffer[:n]); err == nil { // else it was no question
				_, _ = socket.WriteTo(answer, from) // who gets no answer asks again
			}
		}
	}()
	return socket, nil
}

func (c *Cluster) answerDNS(message []byte) ([]byte, error) {
	var m dnsmessage.Message
	if err := m.Unpack(message); err != nil {
		return nil, err
	}
	m.Response, m.RecursionAvailable, m.Additionals = true, true, nil
	for _, q := range m.Questions {
		address, found := c.lookUpService(strings.ToLower(q.Name.String()))
		switch {
		case !found:
			m.RCode = dnsmessage.RCodeNameError
		case q.Type == dnsmessage.TypeA:
			m.Answers = append(m.Answers, dnsmessage.Resource{
				Header: dnsmessage.ResourceHeader{Name: q.Name, Class: dnsmessage.ClassINET, TTL: 1},
				Body:   &dnsmessage.AResource{A: address.As4()},
			})
		}
	}
	return m.Pack()
}

// lookUpService takes names such as web.shop.svc.cluster.local.
func (c *Cluster) lookUpService(host string) (netip.Addr, bool) {
	labels := strings.Split(strings.TrimSuffix(host, ".svc."+clusterDomain), ".")
	if len(labels) != 2 {
		return netip.Addr{}, false
	}
	service, err := c.client.CoreV1().Services(labels[1]).Get(context.Background(), labels[0], metav1.GetOptions{})
	if err != nil {
		return netip.Addr{}, false
	}
	address, err := netip.ParseAddr(service.Spec.ClusterIP)
	return address, err == nil && address.Is4()
}
