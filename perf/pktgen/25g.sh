#!/bin/sh
# Starts pktgen-dpdk on two 25 GbE ports, 4 cores a port, with the profile beside it.
# The ports are the generator's own; give them as PCI addresses.
set -eu
[ $# -eq 2 ] || { echo "use: $0 PCI_TO_WAN PCI_TO_LAN    (0000:3b:00.0 0000:3b:00.1)" >&2; exit 2; }
exec pktgen -l 1-9 -n 4 --file-prefix=pktgen-25g -a "$1" -a "$2" -- \
    -P -m "[2-3:4-5].0,[6-7:8-9].1" -f "$(dirname "$0")/25g.pkt"
