//! packet
pub mod tcp {
    //! tcp
    pub mod flags {
        //! flags
        /// FIN
        pub const FIN: u8 = 1;
        /// SYN
        pub const SYN: u8 = 2;
        /// RST
        pub const RST: u8 = 4;
        /// ACK
        pub const ACK: u8 = 16;
    }
}
