package meta

import (
	"waggle/dfs/wire"
)

// Resolve implements lookup.Resolver: it walks a path by the hashes of its
// names.
//
// The status of an answer that is not LookupOK comes with Walked and nothing
// else. Whoever asks for the content of a file, or where it is, must be allowed
// to read it; its attributes are for everybody who can search its directory.
func (s *Server) Resolve(q *wire.LookupRequest, a *wire.LookupAnswer) {
	session, err := s.sessions.get(q.Session)
	if err != nil {
		a.Status = wire.LookupBadSession
		return
	}
	replicas := a.Location.Replicas
	err = s.published.readCached(func(r *reader) {
		*a = wire.LookupAnswer{Location: wire.Location{Replicas: replicas}}
		s.resolve(r, &session.credentials, q, a)
	})
	if err != nil {
		s.log.Error("answer a lookup", "error", err)
		*a = wire.LookupAnswer{Status: wire.LookupRetry}
	}
	if a.Status == wire.LookupOK || a.Status == wire.LookupNotFound {
		s.mirror.missed(q)
	}
}

func (s *Server) resolve(r *reader, who *credentials, q *wire.LookupRequest, a *wire.LookupAnswer) {
	at := r.inode(q.Start)
	if at == nil {
		a.Status = wire.LookupNotFound
		return
	}
	for _, name := range q.Names[:q.Components] {
		if at, a.Status = s.descend(r, who, at, name); a.Status != wire.LookupOK {
			return
		}
		a.Walked++
	}
	a.Attributes = at.Attributes
	if !isFile(at) || q.Flags == 0 {
		return
	}
	if !who.mayUse(&at.Attributes, mayRead) {
		a.Status, a.Attributes = wire.LookupDenied, wire.Attributes{}
		return
	}
	if q.Flags&wire.WantInline != 0 {
		a.Inline = at.content
	}
	if q.Flags&wire.WantLocation != 0 && at.InlineSize == 0 {
		s.locate(r, place{at.Inode, q.ChunkIndex}, &a.Location)
	}
}

// descend goes from an inode to what a name in it stands for.
func (s *Server) descend(r *reader, who *credentials, at *inode, name wire.NameHash) (*inode, wire.LookupStatus) {
	switch {
	case isSymlink(at):
		return nil, wire.LookupSymlink
	case !isDirectory(at):
		return nil, wire.LookupNotDirectory
	case !who.may(&at.Attributes, maySearch):
		return nil, wire.LookupDenied
	}
	names := r.entries(entryKey(at.Inode, name))
	switch len(names) {
	case 0:
		return nil, wire.LookupNotFound
	case 1:
	default:
		return nil, wire.LookupAmbiguous
	}
	if at = r.inode(names[0].inode); at == nil {
		return nil, wire.LookupRetry
	}
	return at, wire.LookupOK
}

func (s *Server) locate(r *reader, p place, l *wire.Location) {
	s.fillLocation(p, r.chunk(p), l)
}

// fillLocation says where a chunk is; c is nil if there is nothing at its place.
func (s *Server) fillLocation(p place, c *chunk, l *wire.Location) {
	l.Index = p.index
	if c != nil {
		l.Chunk, l.Epoch, l.Length = c.id, c.epoch, c.expected()
		l.Replicas = s.servers.replicas(l.Replicas, c.servers)
	}
}
