// Aws-iam-authenticator is `aws-iam-authenticator token` by the upstream library.
// The upstream program cannot be installed at this version, because its module
// replaces another one.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/viper"
	"sigs.k8s.io/aws-iam-authenticator/pkg/token"
)

func main() {
	// As upstream has it: cobra and viper are part of what it takes to start.
	root := &cobra.Command{Use: "aws-iam-authenticator", SilenceUsage: true}
	root.PersistentFlags().StringP("cluster-id", "i", "", "")
	command := &cobra.Command{Use: "token", RunE: func(*cobra.Command, []string) error {
		generator, err := token.NewGenerator(false, false)
		if err != nil {
			return err
		}
		made, err := generator.GetWithOptions(context.Background(), &token.GetTokenOptions{
			ClusterID: viper.GetString("clusterID"), AssumeRoleARN: viper.GetString("role"), Region: viper.GetString("region"),
		})
		if err == nil {
			fmt.Println(generator.FormatJSON(made))
		}
		return err
	}}
	command.Flags().String("region", "", "")
	command.Flags().StringP("role", "r", "", "")
	root.AddCommand(command)
	for name, flag := range map[string]string{"clusterID": "cluster-id", "region": "region", "role": "role"} {
		f := command.Flags().Lookup(flag)
		if f == nil {
			f = root.PersistentFlags().Lookup(flag)
		}
		if err := viper.BindPFlag(name, f); err != nil {
			panic(err)
		}
	}
	if root.Execute() != nil {
		os.Exit(1)
	}
}
