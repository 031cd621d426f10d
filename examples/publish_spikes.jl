# Sorted spikes of Julia into nuclr-stream: the protocol's bytes, with ZMQ.jl and MsgPack.jl and nothing of ours.
# ] add ZMQ MsgPack
using MsgPack, ZMQ

const RATE, BLOCK = 30_000, Int64(600)
common(seq) = Dict("v" => 1, "epoch" => EPOCH, "seq" => seq, "sample_rate" => [RATE, 1], "origin" => 0)
const EPOCH = round(Int, 1000 * time())
bytes(values) = collect(reinterpret(UInt8, htol.(values)))

# names are two frames: where each ends in the text, from 0 on, and the text
function names(ids)
    ends = UInt32[0; cumsum(sizeof.(ids))]
    return [bytes(ends), Vector{UInt8}(codeunits(join(ids)))]
end

function units(seq, ids)
    rows = length(ids)
    header = merge(common(seq), Dict("version" => 0, "full" => true, "sample" => 0, "continues" => false, "rows" => rows))
    unknown = fill(Float32(NaN), rows)
    return [Vector{UInt8}("units/probeA"), pack(header), zeros(UInt8, rows), bytes(UInt32.(0:rows-1)),
            bytes(zeros(UInt32, rows)), bytes(zeros(Int64, rows)), bytes(fill(Int32(-1), rows)), bytes(unknown),
            bytes(unknown), bytes(fill(Int32(-1), rows)), names(ids)...]
end

function spikes(seq, start, stop, samples, index)
    header = merge(common(seq), Dict("start" => start, "stop" => stop, "table_version" => 0, "spikes" => length(samples)))
    return [Vector{UInt8}("spikes/probeA"), pack(header), bytes(Int64.(samples)), bytes(UInt32.(index))]
end

function send_all(socket, frames)
    for (place, frame) in enumerate(frames)
        send(socket, Message(frame); more = place < length(frames))
    end
end

socket = Socket(PUSH)
connect(socket, "tcp://127.0.0.1:5581")
send_all(socket, units(0, ["unit1", "unit2"]))
for block in 0:2999
    start = block * BLOCK
    samples = start .+ rand(0:BLOCK-1, rand(0:2))            # yours
    send_all(socket, spikes(block + 1, start, start + BLOCK, samples, rand(0:1, length(samples))))
    sleep(BLOCK / RATE)
end
close(socket)
