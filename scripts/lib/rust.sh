# shellcheck shell=bash
# The Rust toolchain. Sourced, never run; needs say.sh, and the repository as working directory.

# need_rust: cargo is there, and new enough for this workspace.
need_rust() {
    local wanted have
    run_cargo --version >/dev/null 2>&1 ||
        refuse "needs a Rust toolchain, and there is no cargo; see https://rustup.rs"
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    have=$(run_cargo --version | cut -d' ' -f2)
    if [[ $(printf '%s\n' "$wanted" "${have%%-*}" | sort -V | head -n1) != "$wanted" ]]; then
        refuse "needs Rust $wanted or newer, and this is $have; run: rustup update stable"
    fi
}

# run_cargo ARGS...: cargo, under sudo as the user who called it: theirs are the toolchain and the
# target directory.
run_cargo() {
    if under_sudo; then
        sudo -H -u "$SUDO_USER" env PATH="$(sudo_home)/.cargo/bin:$PATH" cargo "$@"
    else
        cargo "$@"
    fi
}

# run_rustc ARGS...: that toolchain's compiler.
run_rustc() {
    if under_sudo; then
        sudo -H -u "$SUDO_USER" env PATH="$(sudo_home)/.cargo/bin:$PATH" rustc "$@"
    else
        rustc "$@"
    fi
}

# run_cargo_as_root ARGS...: cargo for what only root may run, with the same toolchain.
run_cargo_as_root() {
    if under_sudo; then
        env PATH="$(sudo_home)/.cargo/bin:$PATH" CARGO_HOME="$(sudo_home)/.cargo" \
            RUSTUP_HOME="$(sudo_home)/.rustup" cargo "$@"
    else
        cargo "$@"
    fi
}

under_sudo() {
    ((EUID == 0)) && [[ -n ${SUDO_USER:-} && $SUDO_USER != root ]]
}

sudo_home() {
    getent passwd "$SUDO_USER" | cut -d: -f6
}

# target_directory: prints where cargo builds to.
target_directory() {
    run_cargo metadata --format-version 1 --no-deps | jq -r .target_directory
}
