"""What a bench says of the computer that it ran on."""

from fluoronav.lab import machine


def test_the_instruction_sets_are_those_of_the_kernel_s_flags(tmp_path, monkeypatch):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nmodel name\t: A Processor\nflags\t\t: fpu avx2 avx512f amx_tile amx_int8\n\n")
    monkeypatch.setattr(machine, "_CPUINFO", cpuinfo)
    assert machine.processor_name() == "A Processor"
    assert machine.instruction_sets() == ["avx2", "avx512f", "amx"]


def test_a_system_that_does_not_tell_has_none(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "_CPUINFO", tmp_path / "none")
    assert machine.instruction_sets() == []
    assert set(machine.description()) == {"cpu", "cores", "system", "instruction_sets"}
