"""A host that hangs or dies is told and costs the others nothing; nothing that happens is missed."""
