// Package control holds the messages and services of the control protocol,
// generated from control.proto by protoc.
package control

//go:generate sh generate.sh
