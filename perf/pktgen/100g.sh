#!/bin/sh
# Starts pktgen-dpdk on two 100 GbE ports, 8 cores a port, with the profile beside it.
# The ports are the generator's own; give them as PCI addresses.
set -eu
[ $# -eq 2 ] || { echo "use: $0 PCI_TO_WAN PCI_TO_LAN    (0000:3b:00.0 0000:3b:00.1)" >&2; exit 2; }
exec pktgen -l 1-25 -n 4 --file-prefix=pktgen-100g -a "$1" -a "$2" -- \
    -P -m "[2-5:6-13].0,[14-17:18-25].1" -f "$(dirname "$0")/100g.pkt"
