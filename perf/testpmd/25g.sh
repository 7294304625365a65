#!/bin/sh
# The reference on 25 GbE: dpdk-testpmd in Weir's place, on the same two ports and as many
# cores as configs/line-rate-25g.toml gives Weir. What comes in on one port leaves by the other
# with its MAC addresses swapped. Stop it with "stop" and "quit"; "show fwd stats all" shows cycles.
set -eu
[ $# -eq 2 ] || { echo "use: $0 PCI_WAN PCI_LAN    (0000:3b:00.0 0000:3b:00.1)" >&2; exit 2; }
exec dpdk-testpmd -l 1-9 --main-lcore 1 -n 4 --file-prefix=testpmd-25g -a "$1" -a "$2" -- \
    --forward-mode=macswap --nb-cores=8 --rxq=8 --txq=8 --rxd=1024 --txd=1024 --burst=32 \
    --rss-ip --rss-udp --portmask=0x3 --auto-start -i --record-core-cycles
