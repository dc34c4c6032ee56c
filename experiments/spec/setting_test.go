package spec

import (
	"testing"

	"github.com/stretchr/testify/require"

	"waggle/results"
)

// A setting changes the one parameter that it names, and is refused where that would be.
func TestASettingChangesOneParameter(t *testing.T) {
	asIs, err := resolve(results.Cell{SettingFactor: SettingAsIs}, results.Cell{"topology": Hosts})
	require.NoError(t, err)
	for setting, change := range map[string]func(*Parameters){
		"congestion=bbr":         func(p *Parameters) { p.Congestion = "bbr" },
		"nodelay=false":          func(p *Parameters) { p.Delay = true },
		"mtu_bytes=9000":         func(p *Parameters) { p.MTUBytes = 9000 },
		"pin=apart":              func(p *Parameters) { p.Pin = PinApart },
		"huge_pages=always":      func(p *Parameters) { p.HugePages = "always" },
		"ledger=true":            func(p *Parameters) { p.Ledger = true },
		"environment_bytes=4096": func(p *Parameters) { p.EnvironmentBytes = 4096 },
		"link_order=reverse":     func(p *Parameters) { p.LinkReverse = true },
	} {
		changed, err := resolve(results.Cell{SettingFactor: setting}, results.Cell{"topology": Hosts})
		require.NoError(t, err)
		wanted := asIs
		change(&wanted)
		require.Equal(t, wanted, changed, setting)
		require.NotEqual(t, asIs, changed, setting)
	}
	for bad, why := range map[string]string{"read=copy": "NAME=VALUE with one of", "congestion": "NAME=VALUE", "mtu_bytes=1": "from 1280", "pin=away": "choose one of"} {
		_, _, err := parseSetting(bad, Paths{})
		require.ErrorContains(t, err, why)
	}
	_, err = resolve(results.Cell{SettingFactor: "link_order=reverse"}, results.Cell{"topology": Local})
	require.ErrorContains(t, err, "for topology=hosts")
}
