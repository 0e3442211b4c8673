package process

import (
	"net"
	"strconv"
	"testing"
)

// TestFreeAddressIsGivenOnce looks for the claim on a port that was given away, while
// nobody listens there yet.
func TestFreeAddressIsGivenOnce(t *testing.T) {
	address, err := FreeAddress("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	_, text, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	if release, err := claim(port); err == nil {
		release()
		t.Errorf("port %d can be given away again", port)
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatalf("what it was given away for cannot listen: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}
