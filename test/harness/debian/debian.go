// Package debian installs the packages that tests run on.
package debian

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// Install installs packages, given by name with a file of each that tells that it is
// there. What is missing takes root and apt-get.
func Install(packages map[string]string) error {
	var missing []string
	for name, file := range packages {
		if _, err := os.Stat(file); err != nil {
			missing = append(missing, name)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	if _, err := exec.LookPath("apt-get"); err != nil || os.Geteuid() != 0 {
		return errors.New("run apt-get install " + strings.Join(missing, " ") + " as root")
	}
	fmt.Fprintf(os.Stderr, "installing %s\n", strings.Join(missing, " "))
	for _, args := range [][]string{
		{"update"},
		append([]string{"install", "-y", "--no-install-recommends"}, missing...),
	} {
		cmd := exec.Command("apt-get", append([]string{"-q", "-o", "DPkg::Lock::Timeout=300"}, args...)...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("apt-get %s: %w\n%s", strings.Join(args, " "), err, out)
		}
	}
	return nil
}
