% Sorted spikes of MATLAB into nuclr-stream, through MATLAB's Python interface.
% Once: pyenv(Version="/path/to/.venv/bin/python"), of an environment in which nuclr-stream is installed.
rate = 30000;
options = pyargs('stream', 'probeA', 'sample_rate', int64(rate), 'start', int64(0));
rig = py.nuclr_stream.client.Publisher('tcp://127.0.0.1:5581', options);
index = uint32(rig.units({'unit1', 'unit2'}));        % of each unit, to be used below

block = int64(rate / 50);                             % 20 ms
for start = 0:block:int64(60 * rate) - block
    [samples, rows] = my_sorter(start, start + block);  % yours: sample numbers, and 1 or 2 for each
    % 'stop' says that all spikes before it are known; send it for a block without spikes, too
    rig.spikes(py.numpy.array(int64(samples)), py.numpy.array(index(rows)), pyargs('stop', start + block));
end
rig.end();                                            % nothing follows
rig.close();

function [samples, rows] = my_sorter(start, stop)
    count = randi(3) - 1;
    samples = start + int64(randi(double(stop - start), 1, count)) - 1;
    rows = randi(2, 1, count);
end
