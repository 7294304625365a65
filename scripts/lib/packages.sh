# shellcheck shell=bash
# What Weir needs from Debian 12, in one place, and how it gets there. Sourced, never run; needs
# say.sh. The lists are used by those who source this.
# shellcheck disable=SC2034

# To build: DPDK with its drivers and headers; bindgen wants libclang 14 (PLATFORM: a newer one
# beside it broke generation), rustc a linker.
packages_build=(dpdk dpdk-dev libdpdk-dev librte-meta-all clang-14 libclang-14-dev pkg-config
    build-essential)
# To play with: namespaces, real servers, clients, and what shows what passes.
packages_play=(iproute2 iputils-ping procps util-linux ethtool tcpdump nginx-light curl wrk
    apache2-utils jq)
# To test, beyond these two.
packages_test=(shellcheck tshark iperf3 bind9-dnsutils traceroute vsftpd)
# To test in a guest with Debian's stock kernel: QEMU, what its first file system is made of, what
# indexes the kernel's modules, and ipvsadm for that kernel's own IPVS.
packages_guest=(qemu-system-x86 busybox-static cpio kmod binutils ipvsadm)

# missing_packages NAME...: prints those that are not installed.
missing_packages() {
    local package
    for package in "$@"; do
        if [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) != installed ]]; then
            printf '%s\n' "$package"
        fi
    done
}

# install_packages NAME...: installs those that are missing; apt's progress is shown.
install_packages() {
    local missing
    mapfile -t missing < <(missing_packages "$@")
    if ((${#missing[@]} == 0)); then
        echo "all there: $*"
        return
    fi
    command -v apt-get >/dev/null ||
        refuse "needs the packages ${missing[*]}, and there is no apt-get to install them"
    ((EUID == 0)) ||
        refuse "needs the packages ${missing[*]}; install them, or run this as root"

    echo "missing: ${missing[*]}"
    refresh_lists
    without_starting_daemons apt-get install -y --no-install-recommends "${missing[@]}" ||
        refuse "apt-get could not install ${missing[*]}; its last lines above say why"
}

# refresh_lists: lists that are a week old name files that the mirror has replaced since.
refresh_lists() {
    if [[ -z $(find /var/lib/apt/lists -name '*_Packages*' -mtime -7 -print -quit 2>/dev/null) ]]; then
        apt-get update || refuse "apt-get update failed; is there a network?"
    fi
}

# without_starting_daemons COMMAND...: runs COMMAND while Debian's packages are told not to start
# what they install: nobody asked for a web server on this machine's port 80.
without_starting_daemons() (
    policy=/usr/sbin/policy-rc.d
    if [[ ! -e $policy ]]; then
        trap 'rm -f "$policy"' EXIT
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
    fi
    DEBIAN_FRONTEND=noninteractive "$@"
)
