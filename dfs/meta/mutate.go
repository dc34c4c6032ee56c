package meta

import (
	"context"
	"errors"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"waggle/dfs/weaken"
	"waggle/dfs/wire"
	"waggle/dfs/wire/control"
)

// maxMutations is how many mutations one request may carry.
const maxMutations = 256

// mutation carries out one change of the namespace for a session.
type mutation struct {
	*change
	walker
	session *session
	config  *Config
	// defaultReplication is the replication of files that don't ask for one.
	defaultReplication uint16
	// whole says that chunks are dropped in one commit, however many there are.
	whole bool
	// cuts are the chunks that were cut on the chunk servers for this mutation.
	cuts map[place]uint32
}

// inode is ambiguous between change and walker, which are the same here.
func (m *mutation) inode(number uint64) *inode { return m.change.inode(number) }

// cutNeeded stops a mutation that would show bytes of a chunk that were cut off
// before: they have to go from the chunk servers first.
type cutNeeded struct {
	place
	length uint32 // bytes that stay
}

func (cutNeeded) Error() string { return "a chunk must be cut first" }

// Mutate implements control.MetaServer.
func (s *Server) Mutate(ctx context.Context, q *control.MutateRequest) (*control.MutateReply, error) {
	session, err := s.sessions.get(q.Session)
	if err != nil {
		return nil, err
	}
	if len(q.Mutations) > maxMutations {
		return nil, refusal(codes.ResourceExhausted, "%d mutations in a request: at most %d are allowed", len(q.Mutations), maxMutations)
	}
	attempt := &mutating{session: session, cuts: make(map[place]uint32), uncut: make(map[uint64]error)}
	reply := &control.MutateReply{Results: make([]*control.MutationResult, 0, len(q.Mutations))}
	for len(reply.Results) < len(q.Mutations) {
		var needed cutNeeded
		var drop dropNeeded
		var cut, dropping bool
		err := s.executor.do(ctx, func(c *change) error {
			if session.ended {
				return errBadSession
			}
			session.forgetBelow(q.AnsweredBelow)
			for _, asked := range q.Mutations[len(reply.Results):] {
				r, err := session.answer(c, asked.Number, func() (*control.MutationResult, error) {
					return s.carryOut(c, attempt, asked)
				})
				if cut = errors.As(err, &needed); cut {
					return nil
				}
				if dropping = errors.As(err, &drop); dropping {
					return nil
				}
				if err != nil {
					if weaken.On(weaken.AnswerEach) {
						return err
					}
					r = refusedResult(err)
				}
				reply.Results = append(reply.Results, r)
			}
			return nil
		})
		switch {
		case err == errBadSession && len(reply.Results) > 0:
			// What stands before it was carried out, and must not be once more.
			for len(reply.Results) < len(q.Mutations) {
				reply.Results = append(reply.Results, refusedResult(err))
			}
		case err != nil:
			return nil, err
		case dropping:
			if err := s.dropTail(ctx, session, drop.place); err != nil && err != errBadSession {
				return nil, err
			}
		case cut:
			if err := s.cutChunk(ctx, needed.place); ctx.Err() != nil {
				return nil, err // nobody waits for the answer
			} else if err != nil {
				attempt.uncut[q.Mutations[len(reply.Results)].Number] = err
			}
			attempt.cuts[needed.place] = needed.length
		}
	}
	s.tellWanted(reply.Results)
	return reply, nil
}

// tellWanted marks the answers of those who should release their leases soon.
func (s *Server) tellWanted(results []*control.MutationResult) {
	for i, r := range results {
		if inode := r.GetAttributes().GetInode(); inode != 0 && s.wanted.isWanted(inode) {
			results[i] = &control.MutationResult{Attributes: r.Attributes, Wanted: true} // what is remembered stays as it is
		}
	}
}

// dropTail drops the last chunks of a file, batch by batch.
func (s *Server) dropTail(ctx context.Context, session *session, from place) error {
	for more := true; more; {
		err := s.executor.do(ctx, func(c *change) error {
			if session.ended {
				return errBadSession
			}
			for _, k := range c.keys(prefix(tableLease, from.inode), maxLeases) {
				if h, _ := load(c, k, decodeHolder); k.second() >= from.index && h != 0 && h != holder(session.id) {
					more = false // the mutation says so
					return nil
				}
			}
			more = c.dropTail(from)
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// mutating is what one request's mutations have in common.
type mutating struct {
	session *session
	// cuts are the chunks that were cut on the chunk servers for a mutation; uncut
	// says, by the mutation's number, why that failed. Then this mutation fails,
	// and no other.
	cuts  map[place]uint32
	uncut map[uint64]error
}

// refusedResult answers a mutation that was not carried out.
func refusedResult(err error) *control.MutationResult {
	refused := status.Convert(err)
	return &control.MutationResult{Code: uint32(refused.Code()), Message: strings.ToValidUTF8(refused.Message(), "?")}
}

// carryOut carries out a mutation. Its error is not an answer to the mutation,
// but says that there is none yet.
func (s *Server) carryOut(c *change, attempt *mutating, asked *control.Mutation) (*control.MutationResult, error) {
	if err := attempt.uncut[asked.Number]; err != nil {
		return refusedResult(err), nil
	}
	m := &mutation{
		change:  c,
		walker:  walker{tables: c, hash: s.hash, who: &attempt.session.credentials},
		session: attempt.session, config: &s.config, defaultReplication: s.servers.defaultReplication(), cuts: attempt.cuts,
	}
	if create := asked.GetCreate(); create != nil {
		m.whole = len(create.Inline) > 0 // replaces what there was atomically
	}
	changed, err := s.admit(asked, m)
	if errors.As(err, new(cutNeeded)) || errors.As(err, new(dropNeeded)) {
		return nil, err
	}
	if err == errDangling {
		err = refusal(codes.Internal, "the metadata is damaged: %v; run fsck", err)
	}
	if err != nil {
		return refusedResult(err), nil
	}
	return &control.MutationResult{Attributes: attributesMessage(&changed.Attributes)}, nil
}

// admit carries a mutation out if there is room for it.
func (s *Server) admit(asked *control.Mutation, m *mutation) (*inode, error) {
	if grows(asked) {
		if err := s.space.room(); err != nil {
			return nil, err
		}
	}
	return m.apply(asked)
}

func (m *mutation) apply(asked *control.Mutation) (*inode, error) {
	switch q := asked.Change.(type) {
	case *control.Mutation_Create:
		return m.create(q.Create)
	case *control.Mutation_Mkdir:
		return m.mkdir(q.Mkdir)
	case *control.Mutation_Symlink:
		return m.symlink(q.Symlink)
	case *control.Mutation_Link:
		return m.link(q.Link)
	case *control.Mutation_Remove:
		return m.remove(q.Remove)
	case *control.Mutation_Rename:
		return m.rename(q.Rename)
	case *control.Mutation_SetAttributes:
		return m.setAttributes(q.SetAttributes)
	case *control.Mutation_SetXattr:
		return m.setXattr(q.SetXattr)
	case *control.Mutation_WriteInline:
		return m.writeInline(q.WriteInline)
	case *control.Mutation_SetSize:
		return m.setSize(q.SetSize)
	}
	return nil, refusal(codes.InvalidArgument, "mutation %d asks for nothing that this server knows", asked.Number)
}

func attributesMessage(a *wire.Attributes) *control.Attributes {
	return &control.Attributes{
		Inode: a.Inode, Size: a.Size, ModifiedNs: a.ModifiedNs, ChangedNs: a.ChangedNs, Mode: a.Mode, Uid: a.UID, Gid: a.GID,
		Links: a.Links, Version: a.Version, ChunkSize: a.ChunkSize, Replication: uint32(a.Replication), InlineSize: uint32(a.InlineSize),
	}
}
