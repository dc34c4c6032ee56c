package client

// Session returns the number of the session at hand.
func (c *Client) Session() uint64 { return c.session.Load().id }
