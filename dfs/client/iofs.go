package client

import (
	"context"
	"io/fs"
)

// FS returns the file system as package io/fs knows it, for use with
// fs.WalkDir, http.FS and others. Paths follow the rules of fs.ValidPath.
func (c *Client) FS(ctx context.Context) fs.FS { return &ioFS{c, ctx} }

type ioFS struct {
	c   *Client
	ctx context.Context
}

var (
	_ fs.StatFS     = (*ioFS)(nil)
	_ fs.ReadDirFS  = (*ioFS)(nil)
	_ fs.ReadFileFS = (*ioFS)(nil)
	_ fs.ReadLinkFS = (*ioFS)(nil)
)

func valid(op, name string) error {
	if !fs.ValidPath(name) {
		return &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
	}
	return nil
}

func (f *ioFS) Open(name string) (fs.File, error) {
	if err := valid("open", name); err != nil {
		return nil, err
	}
	file, err := f.c.Open(f.ctx, name)
	if err != nil {
		return nil, err
	}
	return file, nil
}

func (f *ioFS) Stat(name string) (fs.FileInfo, error) {
	if err := valid("stat", name); err != nil {
		return nil, err
	}
	info, err := f.c.Stat(f.ctx, name)
	if err != nil {
		return nil, err
	}
	return info, nil
}

func (f *ioFS) Lstat(name string) (fs.FileInfo, error) {
	if err := valid("lstat", name); err != nil {
		return nil, err
	}
	info, err := f.c.Lstat(f.ctx, name)
	if err != nil {
		return nil, err
	}
	return info, nil
}

func (f *ioFS) ReadDir(name string) ([]fs.DirEntry, error) {
	if err := valid("readdir", name); err != nil {
		return nil, err
	}
	return f.c.ReadDir(f.ctx, name)
}

func (f *ioFS) ReadFile(name string) ([]byte, error) {
	if err := valid("readfile", name); err != nil {
		return nil, err
	}
	return f.c.ReadFile(f.ctx, name)
}

func (f *ioFS) ReadLink(name string) (string, error) {
	if err := valid("readlink", name); err != nil {
		return "", err
	}
	return f.c.Readlink(f.ctx, name)
}
