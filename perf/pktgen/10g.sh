#!/bin/sh
# Starts pktgen-dpdk on two 10 GbE ports, 2 cores a port, with the profile beside it.
# The ports are the generator's own; give them as PCI addresses.
set -eu
[ $# -eq 2 ] || { echo "use: $0 PCI_TO_WAN PCI_TO_LAN    (0000:3b:00.0 0000:3b:00.1)" >&2; exit 2; }
exec pktgen -l 1-5 -n 4 --file-prefix=pktgen-10g -a "$1" -a "$2" -- \
    -P -m "[2:3].0,[4:5].1" -f "$(dirname "$0")/10g.pkt"
