#!/usr/bin/busybox sh
# The guest's first and only process of its own: mounts, loads modules, runs the scenarios, ends.
# Its kernel shows on ttyS0; what is for the test goes to ttyS1.
bb=/usr/bin/busybox
$bb mkdir -p /proc /sys /dev /tmp /run /busybox
$bb mount -t proc proc /proc
$bb mount -t sysfs sys /sys
$bb mount -t devtmpfs dev /dev
$bb ln -s /proc/self/fd /dev/fd
$bb mount -t tmpfs tmp /tmp
$bb mount -t tmpfs run /run
exec </dev/null >/dev/ttyS1 2>&1
$bb stty -F /dev/ttyS1 -opost

# The real tools come first, busybox is for the rest.
$bb --install -s /busybox
export PATH=/usr/sbin:/usr/bin:/busybox HOME=/tmp

while read -r module; do
    insmod "/modules/$module" || echo "guest: no $module"
done </modules/order
ip link set lo up
ulimit -n 65536

read -r uptime rest </proc/uptime
echo "guest: up after $uptime s, kernel $(uname -r)"
WEIR_BIN=/weir RUST_BACKTRACE=1 \
    /e2e --ignored --test-threads=1 --nocapture --color=never "$(cat /scenarios)"
echo "guest: exit $?"
poweroff -f
