#!/bin/sh
# The reference of `weir-perf link`, by hand: testpmd macswap as the client of a memif socket
# that something else (the server) has opened. `weir-perf link` starts exactly this.
set -eu
[ $# -eq 1 ] || { echo "use: $0 SOCKET" >&2; exit 2; }
exec dpdk-testpmd -l 0,1 --main-lcore 0 --no-pci --iova-mode=va --in-memory -m192 \
    --file-prefix="testpmd-$$" \
    --vdev="net_memif0,role=client,id=0,socket=$1,socket-abstract=no,rsize=11,bsize=2048" -- \
    --forward-mode=macswap --nb-cores=1 --rxd=1024 --txd=1024 --burst=32 \
    --total-num-mbufs=16384 --port-topology=loop --auto-start -i --no-mlockall --record-core-cycles
