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
    described = machine.description()
    assert set(described) == {"cpu", "cores", "system", "instruction_sets", "kernels", "networks"}
    assert "instruction sets that are not known" in machine.words(described)[0]


def test_a_person_reads_which_sets_the_processor_has_which_it_lacks_and_for_which_the_kernels_are():
    described = {
        "cpu": "A Processor", "cores": 2, "instruction_sets": ["avx2", "avx512f", "avx512_vnni"],
        "kernels": {"cpu": "haswell", "instruction_set": "avx2"}, "networks": "ONNX Runtime uses all",
    }  # fmt: skip
    assert machine.words(described) == [
        "processor: A Processor, 2 cores, with AVX2, AVX-512F, AVX-512 VNNI; without AVX-VNNI, AMX",
        "kernels: compiled for AVX2 (haswell); networks: ONNX Runtime uses all",
    ]
