//! Finds libdpdk by pkg-config, compiles the C shim and generates the bindings.
//!
//! Four traps are handled here, each of which once cost an afternoon:
//! - DPDK's cflags (`-include rte_config.h -march=...`) decide struct layouts, so clang and cc
//!   get them verbatim;
//! - packed structs that contain aligned ones cannot be expressed in Rust: opaque;
//! - `RTE_BIT64(...)` constants need clang to evaluate the macro, or they vanish silently;
//! - thread-local variables bind as plain statics that crash when read: blocked, the shim has
//!   functions instead.

use std::path::PathBuf;
use std::process::Command;

/// Functions that Weir calls outside the hot path, or that are the hot path's cold end.
const FUNCTIONS: &[&str] = &[
    // EAL
    "rte_eal_init",
    "rte_strerror",
    "rte_eal_get_runtime_dir",
    "rte_version",
    "rte_log_cur_msg_loglevel",
    "rte_thread_register",
    "rte_thread_unregister",
    "rte_dev_name",
    // buffers
    "rte_eal_has_hugepages",
    "rte_eal_iova_mode",
    "rte_memzone_reserve_aligned",
    "rte_memzone_free",
    "rte_mempool_create_empty",
    "rte_mempool_set_ops_byname",
    "rte_mempool_populate_default",
    "rte_mempool_populate_iova",
    "rte_mempool_obj_iter",
    "rte_mempool_free",
    "rte_pktmbuf_pool_init",
    "rte_pktmbuf_init",
    "rte_mempool_avail_count",
    // ports: finding and describing
    "rte_eth_find_next",
    "rte_eth_dev_info_get",
    "rte_eth_dev_socket_id",
    "rte_eth_macaddr_get",
    "rte_eth_link_get_nowait",
    "rte_eth_stats_get",
    // ports: setting up
    "rte_eth_dev_configure",
    "rte_eth_dev_set_mtu",
    "rte_eth_dev_get_mtu",
    "rte_eth_dev_adjust_nb_rx_tx_desc",
    "rte_eth_rx_queue_setup",
    "rte_eth_tx_queue_setup",
    "rte_eth_allmulticast_enable",
    "rte_eth_promiscuous_enable",
    "rte_eth_dev_start",
    "rte_eth_dev_stop",
    "rte_eth_dev_close",
    // receive-side scaling
    "rte_eth_dev_rss_hash_update",
    "rte_eth_dev_rss_hash_conf_get",
    "rte_eth_dev_rss_reta_update",
    "rte_eth_dev_rss_reta_query",
    // bonds
    "rte_eth_bond_create",
    "rte_eth_bond_slave_add",
    "rte_eth_bond_primary_(set|get)",
    "rte_eth_bond_xmit_policy_set",
    "rte_eth_bond_link_monitoring_set",
    "rte_eth_bond_active_slaves_get",
    "rte_eth_dev_mac_addr_add",
    // burst callbacks (packet capture hooks in here)
    "rte_eth_call_rx_callbacks",
    "rte_eth_call_tx_callbacks",
    // src/shim.h and src/layout.h
    "weir_.*",
];

/// Types beyond those that the functions above name.
const TYPES: &[&str] = &["rte_mempool_cache", "rte_pktmbuf_pool_private", "weir_.*"];

/// Variables and constants.
const VARS: &[&str] = &[
    "WEIR_LCORE_NONE",
    "RTE_MAX_ETHPORTS",
    "RTE_MEMPOOL_F_NO_IOVA_CONTIG",
    "RTE_LOG_(ERR|WARNING|NOTICE|INFO)",
    "rte_eth_fp_ops",
    "RTE_PKTMBUF_HEADROOM",
    "RTE_MBUF_PORT_INVALID",
    "RTE_MBUF_F_RX_(IP|L4)_CKSUM_.*",
    "RTE_MBUF_F_(INDIRECT|EXTERNAL)",
    "RTE_ETH_RX_OFFLOAD_(IPV4|UDP|TCP)_CKSUM",
    "RTE_ETH_RSS_NONFRAG_IPV4_(TCP|UDP|SCTP)",
    "RTE_ETH_RSS_IPV4",
    "RTE_ETH_RSS_FRAG_IPV4",
    "RTE_ETH_RETA_GROUP_SIZE",
    "RTE_ETH_SPEED_NUM_UNKNOWN",
    "RTE_ETH_LINK_UP",
    "RTE_ETH_DEV_INTR_LSC",
    "BONDING_MODE_.*",
    "BALANCE_XMIT_POLICY_.*",
    "WEIR_LACP_.*",
];

/// Packed structs with aligned members, which rustc refuses. None is used by Weir.
const OPAQUE: &[&str] = &["rte_arp_ipv4", "rte_arp_hdr", "rte_gtp_psc_generic_hdr"];

fn main() {
    for file in ["shim.h", "shim.c", "layout.h", "layout.c"] {
        println!("cargo:rerun-if-changed=src/{file}");
    }
    // Links the shared libraries that turn out to be needed (the linker runs --as-needed); the
    // drivers are plugins that EAL loads from DPDK's own folder.
    if let Err(e) = pkg_config::Config::new()
        .atleast_version("22.11")
        .probe("libdpdk")
    {
        fail(&format!(
            "DPDK 22.11 or newer was not found by pkg-config.\n\
             On Debian and Ubuntu: apt-get install libdpdk-dev dpdk pkg-config libclang-14-dev\n\
             Built from source: add its lib/<arch>/pkgconfig folder to PKG_CONFIG_PATH.\n\
             Without DPDK: cargo build -p weir-dataplane --no-default-features.\n\
             pkg-config: {}",
            match e {
                pkg_config::Error::ProbeFailure { output, .. }
                | pkg_config::Error::Failure { output, .. } =>
                    String::from_utf8_lossy(&output.stderr).trim().to_owned(),
                other => other.to_string(),
            }
        ));
    }
    // The bonding driver is a plugin like the others, and the only one with functions of its own to
    // call: linked here, and loaded once all the same, because EAL finds the same file.
    println!("cargo:rustc-link-lib=rte_net_bond");
    let cflags = cflags();
    compile_shim(&cflags);
    generate_bindings(&cflags);
}

/// `pkg-config --cflags libdpdk`, word for word: the pkg-config crate keeps only paths and
/// defines, but `-include` and `-march` matter as much.
fn cflags() -> Vec<String> {
    let tool = std::env::var("PKG_CONFIG").unwrap_or_else(|_| "pkg-config".into());
    let output = Command::new(&tool).args(["--cflags", "libdpdk"]).output();
    match output {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout)
            .split_whitespace()
            .map(str::to_owned)
            .collect(),
        Ok(output) => fail(&String::from_utf8_lossy(&output.stderr)),
        Err(e) => fail(&format!("{tool} --cflags libdpdk: {e}")),
    }
}

fn compile_shim(cflags: &[String]) {
    let mut cc = cc::Build::new();
    for flag in cflags {
        cc.flag(flag);
    }
    cc.files(["src/shim.c", "src/layout.c"])
        .flag("-Wall")
        .flag("-Wextra")
        // DPDK's own headers do not hold up to -Wextra.
        .flag_if_supported("-Wno-unused-parameter")
        .compile("weir_dpdk_shim");
}

fn generate_bindings(cflags: &[String]) {
    let out_dir = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let mut builder = bindgen::Builder::default()
        .header("src/shim.h")
        .header("src/layout.h")
        .clang_args(cflags)
        .clang_macro_fallback()
        .clang_macro_fallback_build_dir(&out_dir)
        .rust_edition(bindgen::RustEdition::Edition2024)
        .wrap_unsafe_ops(true)
        .prepend_enum_name(false)
        .generate_comments(false)
        .blocklist_item("per_lcore_.*")
        .parse_callbacks(Box::new(bindgen::CargoCallbacks::new()));
    for name in FUNCTIONS {
        builder = builder.allowlist_function(name);
    }
    for name in TYPES {
        builder = builder.allowlist_type(name);
    }
    for name in VARS {
        builder = builder.allowlist_var(name);
    }
    for name in OPAQUE {
        builder = builder.opaque_type(name);
    }
    let bindings = builder.generate().unwrap_or_else(|e| {
        fail(&format!(
            "bindgen could not read DPDK's headers: {e}\n\
             It needs libclang 14 (Debian: apt-get install libclang-14-dev); LIBCLANG_PATH is set \
             in .cargo/config.toml."
        ))
    });
    bindings
        .write_to_file(out_dir.join("bindings.rs"))
        .unwrap_or_else(|e| fail(&format!("{}: {e}", out_dir.join("bindings.rs").display())));
}

/// Ends the build with `text` in plain sight: cargo shows `cargo::error` lines first and as its
/// own, where a panic would hide them in a backtrace.
fn fail(text: &str) -> ! {
    for line in text.lines() {
        println!("cargo::error={line}");
    }
    std::process::exit(1)
}
