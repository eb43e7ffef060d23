package raft

// SoloIndex is an index that may be read at without asking anyone: this member
// leads a cluster of one voter and has committed in its term.
func (n *Node) SoloIndex() (Index, bool) {
	commit := n.solo.Load()
	return Index(commit), commit != 0
}

// Commit is the commit index as far as is known here.
func (n *Node) Commit() Index { return n.Status().Commit }

// Term is the current term.
func (n *Node) Term() Term { return n.Status().Term }
