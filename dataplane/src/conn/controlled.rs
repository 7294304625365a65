//! What a connection knows of the persistence template that controls it.
//!
//! IPVS assures a template when a connection of its own is established, and in UDP when one is
//! answered. A change of state is seen anyway; the first answer of a UDP connection is looked out
//! for aside, so that nobody else's packets are asked.
#![forbid(unsafe_code)]

use super::entry::{Conn, Flags};
use super::templates::TemplateRef;
use crate::packet::Key;
use crate::types::Proto;

impl<K: Key> Conn<K> {
    /// The template that controls it.
    #[inline]
    pub(crate) fn template(&self) -> Option<TemplateRef> {
        TemplateRef::unpacked(self.template)
    }

    /// Has a template control it, or none; which one did before.
    pub(crate) fn set_template(&mut self, template: Option<TemplateRef>) -> Option<TemplateRef> {
        let before = self.template();
        self.template = template.map_or([0; 2], TemplateRef::packed);
        if before.is_some() && !self.mode().is_one_way() {
            self.flags = self.flags.with_aside();
        }
        self.stay_aside();
        before
    }

    /// Whether its first answer assures its template.
    pub(crate) fn awaits_answer(&self) -> bool {
        self.proto() == Proto::Udp
            && !self.mode().is_one_way()
            && self.template().is_some_and(|template| !template.assured)
    }

    /// Keeps its packets aside while the first answer is looked out for.
    pub(super) fn stay_aside(&mut self) {
        if self.awaits_answer() {
            self.flags = self.flags.with(Flags::ASIDE);
        }
    }

    /// It is established or answered: its template, if that does not know yet.
    pub(crate) fn assure(&mut self) -> Option<TemplateRef> {
        let mut template = self.template().filter(|template| !template.assured)?;
        template.assured = true;
        self.set_template(Some(template));
        Some(template)
    }
}
